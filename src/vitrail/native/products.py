"""Products with packed weights: a linear layer with what stands beside it, and an MLP in one go.

They compute without gradients, on a CPU, in fp32 or bf16, and add up in fp32.
"""

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitrail.native.calls import at, function
from vitrail.native.library import library
from vitrail.native.memory import empty

PLAIN, GELU, ADD = 0, 1, 2


@dataclass(frozen=True)
class PackedLinear:
    """`x W^T + b` ready for the product: weights in panels (native/products.h), the bias in fp32.

    Build it with `pack_linear`.
    """

    panels: Tensor
    bias: Tensor
    inputs: int
    outputs: int

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.panels.dtype


def pack_linear(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> PackedLinear:
    """Lay weights `(out, in)` out as the product reads them.

    Args:
        weight: fp32 weights; the number of inputs must be even in bf16.
        bias: fp32, or None.
        dtype: precision to compute in.
    """
    outputs, inputs = weight.shape
    step = _step(dtype)
    assert inputs % step == 0, (inputs, dtype)
    lanes, panel = library("products").vitrail_lanes(), library("products").vitrail_panel()
    spare = -outputs % lanes
    rows = pad(weight.detach().float(), (0, 0, 0, spare)).to(dtype)
    panels = [
        part.unflatten(1, (inputs // step, step)).transpose(0, 1).flatten() for part in rows.split(panel)
    ]  # each (wide, in / step, step) -> (in / step, wide, step)
    offset = torch.zeros(outputs) if bias is None else bias.detach().float()
    return PackedLinear(torch.cat(panels), pad(offset, (0, spare)).contiguous(), inputs, outputs)


def linear(
    x: Tensor, packed: PackedLinear, finish: int = PLAIN, add: Tensor | None = None, norm_eps: float | None = None
) -> Tensor:
    """Return `finish(norm(x) W^T + b)`.

    Args:
        x: `(*, in)`.
        packed: the weights.
        finish: `PLAIN`, `GELU`, or `ADD` to add `add`.
        add: `(*, out)`, for `ADD`.
        norm_eps: with a number, each row is brought to mean 0 and variance 1 before.
    """
    x = x.contiguous()
    y = empty(*x.shape[:-1], packed.outputs, dtype=x.dtype)
    assert x.dtype == packed.dtype and x.shape[-1] == packed.inputs, (x.dtype, x.shape, packed.inputs)
    add = None if add is None else _like(add, y)
    function("products", "linear", x.dtype)(
        at(x),
        ctypes.c_long(x.numel() // packed.inputs),
        packed.inputs,
        at(packed.panels),
        at(packed.bias),
        packed.outputs,
        at(y),
        at(add),
        finish,
        int(norm_eps is not None),
        ctypes.c_float(norm_eps or 0.0),
        torch.get_num_threads(),
    )
    return y


def mlp(
    x: Tensor, first: PackedLinear, second: PackedLinear, add: Tensor | None = None, norm_eps: float | None = None
) -> Tensor:
    """Return `add + gelu(norm(x) W1^T + b1) W2^T + b2`; what lies between the products stays in the cache."""
    x = x.contiguous()
    rows = x.numel() // first.inputs
    if rows < 64 * torch.get_num_threads():  # too few rows to share out: share out the outputs
        between = linear(x, first, GELU, norm_eps=norm_eps)
        return linear(between, second, PLAIN if add is None else ADD, add)
    y = empty(*x.shape[:-1], second.outputs, dtype=x.dtype)
    assert x.dtype == first.dtype == second.dtype and first.outputs == second.inputs
    add = None if add is None else _like(add, y)
    function("products", "mlp", x.dtype)(
        at(x),
        ctypes.c_long(rows),
        first.inputs,
        at(first.panels),
        at(first.bias),
        first.outputs,
        at(second.panels),
        at(second.bias),
        second.outputs,
        at(y),
        at(add),
        int(norm_eps is not None),
        ctypes.c_float(norm_eps or 0.0),
        torch.get_num_threads(),
    )
    return y


def _like(x: Tensor, y: Tensor) -> Tensor:
    assert x.shape == y.shape, (x.shape, y.shape)
    return x.to(y.dtype).contiguous()


def _step(dtype: torch.dtype) -> int:
    return 2 if dtype == torch.bfloat16 else 1
