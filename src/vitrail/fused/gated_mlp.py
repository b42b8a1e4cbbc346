"""Fused gated MLP branch (SwiGLU), for CPU inference."""

import torch
from torch import Tensor, nn

from vitrail.fused.folding import NormAffine, scaled
from vitrail.fused.norms import norm_before
from vitrail.fused.unsupported import NotConverted, Seats
from vitrail.grid import Grid
from vitrail.native.gemm import SILU_GATE, mlp, pack_linear
from vitrail.parts.channel_mixers import GatedMLP, NormedGatedMLP
from vitrail.shapes import Tokens

GATED_MLP_SEATS: Seats = {"fc1": (nn.Linear,), "act": (nn.SiLU,), "fc2": (nn.Linear,)}
NORMED_GATED_MLP_SEATS: Seats = {**GATED_MLP_SEATS, "norm": (nn.LayerNorm,)}


class FusedGatedMLP(nn.Module):
    """`x + scale(W_2 norm2(silu(a) * b))`, `(a, b) = W_1 norm(x)`, in one call; `norm2` of `NormedGatedMLP` alone."""

    def __init__(self, norm: nn.Module, mixer: GatedMLP, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        affine = NormAffine.of(norm, mixer.fc1.in_features)
        self.norm, self.eps = norm_before(norm, affine), affine.eps
        self.first = pack_linear(*affine.folded(mixer.fc1), dtype)
        weight, bias = scaled(mixer.fc2, scale)
        self.inner_eps: float | None = None
        if isinstance(mixer, NormedGatedMLP):
            inner = NormAffine.of(mixer.norm, mixer.fc2.in_features)
            shift = weight @ inner.bias
            weight, bias, self.inner_eps = weight * inner.weight, shift if bias is None else shift + bias, inner.eps
        self.second = pack_linear(weight, bias, dtype)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        return mlp(self.norm(x), self.first, self.second, x, self.eps, SILU_GATE, self.inner_eps)


def fuse_gated_mlp(norm: nn.Module, mixer: GatedMLP, scale: nn.Module, dtype: torch.dtype) -> FusedGatedMLP:
    """Return the fused branch of a gated MLP.

    Raises:
        NotConverted: an odd number of channels in bf16, or a norm of the activations that is not over all of them.
    """
    widths = mixer.fc1.in_features, mixer.fc2.in_features
    if dtype == torch.bfloat16 and any(width % 2 for width in widths):
        raise NotConverted(f"bf16 needs even widths, got {widths[0]} and {widths[1]}")
    if isinstance(mixer, NormedGatedMLP) and mixer.norm.normalized_shape != (widths[1],):
        raise NotConverted(f"its norm is over {mixer.norm.normalized_shape}, not over {widths[1]} channels")
    return FusedGatedMLP(norm, mixer, scale, dtype)


def gated_mlp_unsupported_reason(mixer: GatedMLP) -> str | None:
    """Return why fused code does not compute a gated MLP with known parts, or None."""
    return None if mixer.fc1.out_features == 2 * mixer.fc2.in_features else "its layers do not fit together"
