"""Fused branches of a PoolFormer block, for CPU inference: the norm is over all tokens of an image."""

from typing import TypeGuard

import torch
from torch import Tensor, nn

from vitrail.fused.activated_mlp import activation_of, fuse_activated_mlp
from vitrail.fused.folding import scaled
from vitrail.fused.low_rank import has_products
from vitrail.fused.mlp import check_mlp, fuse_mlp
from vitrail.fused.unsupported import NotConverted, require_libraries
from vitrail.grid import Grid
from vitrail.native.gemm import GELU, pack_linear
from vitrail.native.norms import lanes
from vitrail.native.pooling import image_mlp, pool
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.norms import TokenGroupNorm
from vitrail.parts.regularisation import LayerScale
from vitrail.parts.token_mixers.pooling import Pooling
from vitrail.shapes import Tokens


class FusedPooling(nn.Module):
    """`x + scale(pooling(norm(x)))` in two passes over the tokens: variance, then the rest.

    Pooling subtracts each cell from the mean of its neighbourhood, so the norm's mean and bias cancel out.
    """

    def __init__(self, norm: TokenGroupNorm, mixer: Pooling, scale: nn.Module):
        super().__init__()
        gamma = scale.gamma.detach().float() if isinstance(scale, LayerScale) else 1.0
        self.factor = [lanes(norm.weight.detach().float() * gamma)]  # in a list: it stays in fp32
        self.size, self.eps = mixer.size, norm.eps

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch; the grid must have no prefix."""
        return pool(x, grid, self.size, self.factor[0], self.eps)


class FusedImageMLP(nn.Module):
    """`x + scale(mlp(norm(x)))` with a norm over all tokens of an image."""

    def __init__(self, norm: TokenGroupNorm, mixer: MLP, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        weight, shift = norm.weight.detach().float(), norm.bias.detach().float()
        first, bias = mixer.fc1.weight.detach().float(), mixer.fc1.bias.detach().float()
        self.first = pack_linear(first * weight, first @ shift + bias, dtype)
        self.second = pack_linear(*scaled(mixer.fc2, scale), dtype)
        self.eps = norm.eps

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        return image_mlp(x, self.first, self.second, self.eps)


def fuse_pooling(norm: nn.Module, mixer: Pooling, scale: nn.Module, dtype: torch.dtype) -> FusedPooling:
    """Return the fused branch of a pooling.

    Raises:
        NotConverted: the norm is not over whole images, or an unknown scale.
    """
    if type(scale) not in (nn.Identity, LayerScale):
        raise NotConverted(f"its scale is {type(scale).__name__}")
    if not _is_image_norm(norm):
        raise NotConverted(f"the norm before it is {type(norm).__name__}, not TokenGroupNorm with one group")
    return FusedPooling(norm, mixer, scale)


def fuse_channel_mlp(norm: nn.Module, mixer: MLP, scale: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return the fused branch of an MLP with a norm over the channels of a token or over whole images.

    Raises:
        NotConverted: an odd number of channels in bf16, or an unknown scale.
    """
    if activation_of(mixer.act) != GELU:
        return fuse_activated_mlp(norm, mixer, scale, dtype)
    if not _is_image_norm(norm):
        return fuse_mlp(norm, mixer, scale, dtype)
    check_mlp(mixer, dtype)
    if has_products(mixer):
        raise NotConverted("its layers are products, and the norm before it is over whole images")
    require_libraries("pooling")
    return FusedImageMLP(norm, mixer, scale, dtype)


def _is_image_norm(norm: nn.Module) -> TypeGuard[TokenGroupNorm]:
    """Return whether a norm takes one mean and variance over all tokens and channels of an image."""
    return type(norm) is TokenGroupNorm and norm.num_groups == 1 and norm.affine
