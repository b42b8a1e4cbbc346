"""Layers whose products are of bytes: weights in int8, each token in eight bits of its own range.

Tokens come and go in fp32 or bf16; nothing but the products is quantised, and nothing has to be calibrated.
"""

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitrail.native.calls import at, function
from vitrail.native.library import library, missing
from vitrail.native.memory import empty
from vitrail.native.products import ADD, GELU, PLAIN

STEP = 4  # bytes that one instruction multiplies in each lane
LARGEST = 127


def int8_refusal() -> str | None:
    """Say why there are no products of bytes here, or None where there are."""
    reason = missing("int8")
    if reason is not None:
        return reason
    has_bytes = library("int8").vitrail_has_bytes()
    return None if has_bytes else "this processor has no instruction for products of bytes (VNNI)"


class Quantised(NamedTuple):
    """`w = step * q` for each output: whole numbers `(out, in)` from -127 to 127, and steps `(out,)`."""

    numbers: Tensor
    step: Tensor


class PackedInt8(NamedTuple):
    """`x W^T + b` ready for the product of bytes: panels as in native/products.h, the rest in whole vectors.

    Build it with `pack_int8`, or with `pack_int8_normed` where a norm comes before, which multiplies by the factors.
    """

    panels: Tensor
    step: Tensor
    sums: Tensor
    bias: Tensor
    inputs: int
    outputs: int
    factors: Tensor | None = None


def quantise(weight: Tensor) -> Quantised:
    """Round weights `(out, in)`, each output with the step that its largest weight needs.

    Example:
        >>> numbers, step = quantise(torch.tensor([[0.5, -1.0], [0.0, 0.0]]))
        >>> numbers.tolist(), [round(value, 4) for value in step.tolist()]
        ([[64, -127], [0, 0]], [0.0079, 0.0])
    """
    weight = weight.detach().float()
    step = weight.abs().amax(dim=1) / LARGEST
    numbers = (weight / step.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round()
    return Quantised(numbers.clamp(-LARGEST, LARGEST).to(torch.int8), step)


def pack_int8(weight: Tensor, bias: Tensor | None) -> PackedInt8:
    """Quantise weights `(out, in)` and lay them out as the product reads them."""
    outputs, inputs = weight.shape
    numbers, step = quantise(weight)
    lanes, panel = library("products").vitrail_lanes(), library("products").vitrail_panel()
    spare = -outputs % lanes
    rows = pad(numbers, (0, -inputs % STEP, 0, spare))
    panels = [part.unflatten(1, (-1, STEP)).transpose(0, 1).flatten() for part in rows.split(panel)]
    sums = step * numbers.sum(dim=1)
    offset = torch.zeros(outputs) if bias is None else bias.detach().float()
    step, sums, offset = (pad(each, (0, spare)).contiguous() for each in (step, sums, offset))
    return PackedInt8(torch.cat(panels), step, sums, offset, inputs, outputs)


def pack_int8_normed(weight: Tensor, bias: Tensor | None) -> PackedInt8:
    """Lay weights `(out, in)` behind a norm out, with a factor for each channel that makes eight bits go further.

    x W = (f x) (W / f), f the length of the weights of each input

    A row has one step for all of its inputs, and weights one for each output. Inputs are large where their weights are
    small, for the norm's own scale is folded into these; factors even both out, and no picture is asked for.
    "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv:1906.04721), section 4.1, and
    "SmoothQuant" (arXiv:2211.10438), section 4, here with the weights alone.

    Args:
        weight: fp32.
        bias: fp32, or None.
    """
    factors = lengths(weight)
    lanes = library("products").vitrail_lanes()
    return pack_int8(weight / factors, bias)._replace(factors=pad(factors, (0, -len(factors) % lanes)).contiguous())


def lengths(weight: Tensor) -> Tensor:
    """Return the length of the weights `(out, in)` of each input, as a share of the longest; none is near zero.

    Example:
        >>> [round(value, 4) for value in lengths(torch.tensor([[0.0, 3.0, 0.0], [1.0, 4.0, 0.0]])).tolist()]
        [0.2, 1.0, 0.001]
    """
    found = weight.detach().float().norm(dim=0)
    longest = found.max()
    return (found / longest).clamp(min=1e-3) if longest > 0 else torch.ones_like(found)


def linear_int8(
    x: Tensor, packed: PackedInt8, finish: int = PLAIN, add: Tensor | None = None, norm_eps: float | None = None
) -> Tensor:
    """Return `finish(norm(x) W^T + b)`; the arguments are those of `products.linear`.

    With a norm the layer is one of `pack_int8_normed`.
    """
    x = x.contiguous()
    y = empty(*x.shape[:-1], packed.outputs, dtype=x.dtype)
    assert x.shape[-1] == packed.inputs, (x.shape, packed.inputs)
    function("int8", "linear", x.dtype)(
        at(x),
        ctypes.c_long(x.numel() // packed.inputs),
        packed.inputs,
        *weights(packed),
        at(y),
        at(_like(add, y)),
        finish,
        *_norm(packed, norm_eps),
        torch.get_num_threads(),
    )
    return y


def mlp_int8(
    x: Tensor, first: PackedInt8, second: PackedInt8, add: Tensor | None = None, norm_eps: float | None = None
) -> Tensor:
    """Return `add + gelu(norm(x) W1^T + b1) W2^T + b2`; what lies between the products stays in the cache."""
    x = x.contiguous()
    rows = x.numel() // first.inputs
    if rows < 64 * torch.get_num_threads():  # too few rows to share out: share out the outputs
        between = linear_int8(x, first, GELU, norm_eps=norm_eps)
        return linear_int8(between, second, PLAIN if add is None else ADD, add)
    y = empty(*x.shape[:-1], second.outputs, dtype=x.dtype)
    assert x.shape[-1] == first.inputs and first.outputs == second.inputs, (x.shape, first.inputs, second.inputs)
    function("int8", "mlp", x.dtype)(
        at(x),
        ctypes.c_long(rows),
        first.inputs,
        *weights(first),
        *weights(second),
        at(y),
        at(_like(add, y)),
        *_norm(first, norm_eps),
        torch.get_num_threads(),
    )
    return y


def weights(packed: PackedInt8) -> tuple[ctypes.c_void_p | int, ...]:
    """Return a layer as compiled operations take it."""
    return at(packed.panels), at(packed.step), at(packed.sums), at(packed.bias), packed.outputs


def _norm(packed: PackedInt8, eps: float | None) -> tuple[ctypes.c_void_p, ctypes.c_float]:
    assert (packed.factors is None) == (eps is None), "a norm and its factors come together"
    return at(packed.factors), ctypes.c_float(eps or 0.0)


def _like(x: Tensor | None, y: Tensor) -> Tensor | None:
    if x is None:
        return None
    assert x.shape == y.shape, (x.shape, y.shape)
    return x.to(y.dtype).contiguous()
