"""Fused MLP branch, for CPU inference."""

import torch
from torch import Tensor, nn

from vitrail.fused.folding import NormAffine, scaled
from vitrail.fused.low_rank import FusedProductMLP, has_products
from vitrail.fused.norms import norm_before
from vitrail.fused.unsupported import NotConverted, Seats
from vitrail.grid import Grid
from vitrail.native.gemm import mlp, pack_linear, post_norm_mlp
from vitrail.native.norms import LaneNorm
from vitrail.parts.channel_mixers import MLP
from vitrail.shapes import Tokens

MLP_SEATS: Seats = {"fc1": (nn.Linear,), "act": (nn.GELU,), "fc2": (nn.Linear,)}


class FusedMLP(nn.Module):
    """`x + scale(mlp(norm(x)))` in one call; a norm other than LayerNorm runs before it."""

    def __init__(self, norm: nn.Module, mixer: MLP, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        affine = NormAffine.of(norm, mixer.fc1.in_features)
        self.norm = norm_before(norm, affine)
        self.eps = affine.eps
        self.first = pack_linear(*affine.folded(mixer.fc1), dtype)
        self.second = pack_linear(*scaled(mixer.fc2, scale), dtype)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        return mlp(self.norm(x), self.first, self.second, add=x, norm_eps=self.eps)


class FusedPostNormMLP(nn.Module):
    """`x + norm(mlp(x))` in one call.

    Args:
        mixer: the MLP.
        norm: LayerNorm over the channels of a token.
        dtype: compute dtype.
    """

    def __init__(self, mixer: MLP, norm: nn.LayerNorm, dtype: torch.dtype):
        super().__init__()
        self.norm = LaneNorm.of(norm)
        self.first = pack_linear(mixer.fc1.weight, mixer.fc1.bias, dtype)
        self.second = pack_linear(mixer.fc2.weight, mixer.fc2.bias, dtype)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        return post_norm_mlp(x, self.first, self.second, self.norm)


def fuse_mlp(norm: nn.Module, mixer: MLP, scale: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return the fused branch of an MLP; without a norm before it, its scale may be a LayerNorm.

    Raises:
        NotConverted: an odd number of channels in bf16, or an unknown scale.
    """
    check_mlp(mixer, dtype)
    if has_products(mixer):
        return FusedProductMLP(norm, mixer, scale, dtype)
    if type(norm) is nn.Identity and isinstance(scale, nn.LayerNorm):
        width = mixer.fc2.out_features
        if NormAffine.of(scale, width).eps is not None:
            return FusedPostNormMLP(mixer, scale, dtype)
    return FusedMLP(norm, mixer, scale, dtype)


def check_mlp(mixer: MLP, dtype: torch.dtype) -> None:
    """Check the widths of an MLP.

    Raises:
        NotConverted: an odd number of channels in bf16.
    """
    widths = mixer.fc1.in_features, mixer.fc2.in_features
    if dtype == torch.bfloat16 and any(width % 2 for width in widths):
        raise NotConverted(f"bf16 needs even widths, got {widths[0]} and {widths[1]}")


def mlp_unsupported_reason(mixer: MLP) -> str | None:
    """Return why fused code does not compute an MLP with known parts, or None."""
    if isinstance(mixer.act, nn.GELU) and mixer.act.approximate != "none":
        return f"its act is GELU with approximate={mixer.act.approximate!r}, not the exact GELU"
    return layers_unsupported_reason(mixer)


def layers_unsupported_reason(mixer: MLP) -> str | None:
    """Return why the layers of an MLP do not fit together, or None."""
    return None if mixer.fc2.in_features == mixer.fc1.out_features else "its layers do not fit together"
