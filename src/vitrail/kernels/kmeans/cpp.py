"""Exact k-means in C++, the same recursion as the reference."""

from torch import Tensor

from vitrail.kernels.kmeans.reference import ascending
from vitrail.native import quantized
from vitrail.native.build import missing

_MOST = 2**31 - 1


def unsupported_reason(values: Tensor, weights: Tensor, k: int) -> str | None:
    """Return why native code cannot run, or None."""
    if len(values) > _MOST:
        return f"has indices of 32 bits, got {len(values)} values"
    return missing("kmeans")


def kmeans(values: Tensor, weights: Tensor, k: int) -> Tensor:
    """Return the centers; see the reference."""
    return quantized.kmeans(*ascending(values, weights, k), k)
