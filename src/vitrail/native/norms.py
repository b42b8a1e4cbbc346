"""LayerNorm parameters in the layout of the native kernels."""

import ctypes
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.native.build import library
from vitrail.native.ffi import DataPointers, at


@dataclass(frozen=True)
class LaneNorm:
    """Scale and shift of each channel, padded to whole SIMD vectors, fp32."""

    weight: Tensor
    bias: Tensor
    eps: float

    @cached_property
    def pointers(self) -> DataPointers:
        """Data pointers of weight and bias."""
        return DataPointers(self.weight, self.bias)

    @classmethod
    def of(cls, norm: nn.LayerNorm) -> "LaneNorm":
        """Copy the parameters of a norm over channels."""
        (width,) = norm.normalized_shape
        weight, bias = (
            torch.full((width,), default, dtype=torch.float32, device="cpu") if x is None else x.detach().float()
            for x, default in ((norm.weight, 1.0), (norm.bias, 0.0))
        )
        return cls(lanes(weight), lanes(bias), norm.eps)


def norm_operands(norm: LaneNorm | None) -> tuple[ctypes.c_void_p, ctypes.c_void_p, ctypes.c_float]:
    """Return the native arguments weight, bias and eps; null pointers without a norm."""
    if norm is None:
        return at(None), at(None), ctypes.c_float(0)
    weight, bias = norm.pointers.addresses
    return weight, bias, ctypes.c_float(norm.eps)


def lanes(x: Tensor) -> Tensor:
    """Pad a vector over channels with zeros to whole SIMD vectors."""
    return pad(x, (0, -len(x) % library("gemm").vitrail_lanes())).contiguous()
