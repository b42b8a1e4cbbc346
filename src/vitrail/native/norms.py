"""LayerNorm parameters in the layout of the native kernels."""

from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.native.build import library
from vitrail.native.ffi import Operand, nested
from vitrail.native.prototypes import Arguments


@dataclass(frozen=True)
class LaneNorm:
    """Scale and shift of each channel, padded to whole SIMD vectors, fp32."""

    weight: Tensor
    bias: Tensor
    eps: float

    @cached_property
    def operand(self) -> Operand:
        """Argument struct of the norm."""
        return Operand("NormArgs", weight=self.weight, bias=self.bias, eps=self.eps)

    @classmethod
    def of(cls, norm: nn.LayerNorm) -> "LaneNorm":
        """Copy the parameters of a norm over channels."""
        (width,) = norm.normalized_shape
        weight, bias = (
            torch.full((width,), default, dtype=torch.float32, device="cpu") if x is None else x.detach().float()
            for x, default in ((norm.weight, 1.0), (norm.bias, 0.0))
        )
        return cls(lanes(weight), lanes(bias), norm.eps)


def norm_args(norm: LaneNorm | None) -> Arguments:
    """Return the argument struct of a norm, or of none."""
    return _no_norm() if norm is None else norm.operand.args


@cache
def _no_norm() -> Arguments:
    return nested("NormArgs", weight=None, bias=None, eps=0.0)


def lanes(x: Tensor) -> Tensor:
    """Pad a vector over channels with zeros to whole SIMD vectors."""
    return pad(x, (0, -len(x) % library("gemm").vitrail_lanes())).contiguous()
