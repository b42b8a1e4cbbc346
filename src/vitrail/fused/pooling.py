"""The branches of a PoolFormer block in their fast form: their norm looks at a whole picture at once."""

from typing import TypeGuard

import torch
from torch import Tensor, nn

from vitrail.fused.folding import scaled
from vitrail.fused.mlp import check_mlp, fuse_mlp
from vitrail.fused.unsupported import NotConverted, require_libraries
from vitrail.grid import Grid
from vitrail.native.gemm import pack_linear
from vitrail.native.norms import lanes
from vitrail.native.pooling import image_mlp, pool
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.norms import TokenGroupNorm
from vitrail.parts.regularisation import LayerScale
from vitrail.parts.token_mixers.pooling import Pooling
from vitrail.shapes import Tokens


class FusedPooling(nn.Module):
    """`x + scale(pooling(norm(x)))` in two passes over the tokens: variance, then all the rest.

    The mean of a neighbourhood keeps what is the same in all cells, so the norm's mean and shift cancel out.
    """

    def __init__(self, norm: TokenGroupNorm, mixer: Pooling, scale: nn.Module):
        super().__init__()
        gamma = scale.gamma.detach().float() if isinstance(scale, LayerScale) else 1.0
        self.factor = [lanes(norm.weight.detach().float() * gamma)]  # in a list: it stays in fp32
        self.size, self.eps = mixer.size, norm.eps

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch; the grid must have no prefix."""
        return pool(x, grid, self.size, self.factor[0], self.eps)


class FusedPictureMLP(nn.Module):
    """`x + scale(mlp(norm(x)))` where the norm looks at a whole picture."""

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
    """Return the fast form of a pooling's branch.

    Raises:
        NotConverted: the norm does not look at a whole picture, or an unknown scale.
    """
    if type(scale) not in (nn.Identity, LayerScale):
        raise NotConverted(f"what scales it is {type(scale).__name__}")
    if not _of_pictures(norm):
        raise NotConverted(f"the norm before it is {type(norm).__name__}, not that of a whole picture")
    return FusedPooling(norm, mixer, scale)


def fuse_channel_mlp(norm: nn.Module, mixer: MLP, scale: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return the fast form of an MLP's branch, whether its norm looks at tokens or at pictures.

    Raises:
        NotConverted: another activation, an odd number of channels in bf16, or an unknown scale.
    """
    if not _of_pictures(norm):
        return fuse_mlp(norm, mixer, scale, dtype)
    check_mlp(mixer, dtype)
    require_libraries("pooling")
    return FusedPictureMLP(norm, mixer, scale, dtype)


def _of_pictures(norm: nn.Module) -> TypeGuard[TokenGroupNorm]:
    """Say whether a norm takes one mean and variance from all tokens and channels of a picture."""
    return type(norm) is TokenGroupNorm and norm.num_groups == 1
