"""Int8 GEMMs: weights quantised per output, activations per token at run time.

Inputs and outputs are fp32 or bf16; only the GEMMs are quantised, without calibration.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from vitrail.native.allocator import fp32
from vitrail.native.build import library, missing
from vitrail.native.ffi import Operand, at, invoke
from vitrail.native.gemm import Packed, pad_bias
from vitrail.native.norms import lanes

K_STEP = 4  # bytes per SIMD lane of one dot-product instruction


def int8_refusal() -> str | None:
    """Return the reason why int8 GEMMs are unavailable here, or None if they are available."""
    reason = missing("int8")
    if reason is not None:
        return reason
    has_bytes = library("int8").vitrail_has_bytes()
    return None if has_bytes else "this processor has no instruction for products of bytes (VNNI)"


@dataclass(frozen=True)
class PackedInt8(Packed):
    """Int8 weights with a scale and a sum per output, and after a norm an equalisation factor per input.

    Build it with `pack_int8`, or with `pack_int8_normed` after a norm, which multiplies by the factors.
    """

    step: Tensor
    sums: Tensor
    factors: Tensor | None = None

    layers, attention = "int8", "int8_attention"

    @cached_property
    def operand(self) -> Operand:
        """Panels, bias, sizes, scales, sums and factors."""
        quantized = {"step": self.step, "sums": self.sums, "factors": self.factors}
        sizes = {"inputs": self.inputs, "outputs": self.outputs}
        return Operand("WeightsArgs", panels=self.panels, bias=self.bias, **sizes, **quantized)

    def takes(self, x: Tensor, norm_eps: float | None) -> bool:
        """Compare the width; the factors require a norm, and a norm requires factors."""
        return x.shape[-1] == self.inputs and (self.factors is None) == (norm_eps is None)


def pack_int8(weight: Tensor, bias: Tensor | None) -> PackedInt8:
    """Quantise weights `(out, in)` to int8, symmetrically per output, and pack them in panels.

    w = step * q, q from -127 to 127
    """
    outputs, inputs = weight.shape
    rows = weight.detach().float().contiguous()
    padded = outputs + -outputs % library("gemm").vitrail_lanes()
    panels = torch.empty(padded * (inputs + -inputs % K_STEP), dtype=torch.int8, device="cpu")
    step, sums = fp32(padded), fp32(padded)
    invoke(
        library("int8").vitrail_pack_int8,
        weights=at(rows),
        outputs=outputs,
        inputs=inputs,
        panels=at(panels),
        step=at(step),
        sums=at(sums),
        threads=torch.get_num_threads(),
    )
    return PackedInt8(panels, pad_bias(bias, outputs), inputs, outputs, step, sums)


def pack_int8_normed(weight: Tensor, bias: Tensor | None) -> PackedInt8:
    """Quantise and pack weights `(out, in)` after a norm, with an equalisation factor per input channel.

    x W = (f x) (W / f), f the norm of the weights of each input

    Activations have one quantisation step per row, weights one per output. Without factors, inputs are large if their
    weights are small, since the scale of the norm is folded into the weights; the factors balance both, without
    calibration images. "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv:1906.04721),
    section 4.1, and "SmoothQuant" (arXiv:2211.10438), section 4, here from the weights alone.

    Args:
        weight: fp32.
        bias: fp32, or None.
    """
    factors = lengths(weight)
    return replace(pack_int8(weight / factors, bias), factors=lanes(factors))


def lengths(weight: Tensor) -> Tensor:
    """Return the norm of the weights `(out, in)` of each input, relative to the largest and bounded away from zero.

    Example:
        >>> [round(value, 4) for value in lengths(torch.tensor([[0.0, 3.0, 0.0], [1.0, 4.0, 0.0]])).tolist()]
        [0.2, 1.0, 0.001]
    """
    found = weight.detach().float().norm(dim=0)
    longest = found.max()
    return (found / longest).clamp(min=1e-3) if longest > 0 else torch.ones_like(found)
