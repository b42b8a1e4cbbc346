"""Weights in int8, for products of bytes: each token comes in eight bits of its own range.

Tokens come and go in fp32 or bf16; nothing but the products is quantised, and nothing has to be calibrated.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from vitrail.native.allocator import fp32
from vitrail.native.build import library, missing
from vitrail.native.ffi import DataPointers, at
from vitrail.native.gemm import Packed, pad_bias
from vitrail.native.norms import lanes

K_STEP = 4  # bytes that one instruction multiplies in each lane


def int8_refusal() -> str | None:
    """Say why there are no products of bytes here, or None where there are."""
    reason = missing("int8")
    if reason is not None:
        return reason
    has_bytes = library("int8").vitrail_has_bytes()
    return None if has_bytes else "this processor has no instruction for products of bytes (VNNI)"


@dataclass(frozen=True)
class PackedInt8(Packed):
    """Weights in bytes, each output with its step and its sum, and behind a norm each input with its factor.

    Build it with `pack_int8`, or with `pack_int8_normed` where a norm comes before, which multiplies by the factors.
    """

    step: Tensor
    sums: Tensor
    factors: Tensor | None = None

    layers, attention = "int8", "int8_attention"

    @cached_property
    def pointers(self) -> DataPointers:
        """Panels and all that stands beside them."""
        return DataPointers(self.panels, self.step, self.sums, self.bias, self.factors)

    def takes(self, x: Tensor, norm_eps: float | None) -> bool:
        """Compare the width; a norm and its factors come together."""
        return x.shape[-1] == self.inputs and (self.factors is None) == (norm_eps is None)


def pack_int8(weight: Tensor, bias: Tensor | None) -> PackedInt8:
    """Round weights `(out, in)` to int8, each output with the step of its largest weight, and pack them in panels.

    w = step * q, q from -127 to 127
    """
    outputs, inputs = weight.shape
    rows = weight.detach().float().contiguous()
    padded = outputs + -outputs % library("gemm").vitrail_lanes()
    panels = torch.empty(padded * (inputs + -inputs % K_STEP), dtype=torch.int8, device="cpu")
    step, sums = fp32(padded), fp32(padded)
    library("int8").vitrail_pack_int8(
        at(rows), outputs, inputs, at(panels), at(step), at(sums), torch.get_num_threads()
    )
    return PackedInt8(panels, pad_bias(bias, outputs), inputs, outputs, step, sums)


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
    return replace(pack_int8(weight / factors, bias), factors=lanes(factors))


def lengths(weight: Tensor) -> Tensor:
    """Return the length of the weights `(out, in)` of each input, as a share of the longest; none is near zero.

    Example:
        >>> [round(value, 4) for value in lengths(torch.tensor([[0.0, 3.0, 0.0], [1.0, 4.0, 0.0]])).tolist()]
        [0.2, 1.0, 0.001]
    """
    found = weight.detach().float().norm(dim=0)
    longest = found.max()
    return (found / longest).clamp(min=1e-3) if longest > 0 else torch.ones_like(found)
