"""Attention and MLPs with int8 GEMMs: int8 weights, and each token in eight bits of its own range.

Norms and scales are folded in before, in fp32. Queries, keys, values and residual are not quantized, and neither are
patch embedding, head and merging: they hold few of the operations, and their rounding errors reach all later layers.
"""

import torch
from torch import Tensor, nn

from vitrail.fused.attention import AttentionLayers, FusedAttention, check_attention
from vitrail.fused.folding import NormAffine, scaled
from vitrail.fused.mlp import check_mlp
from vitrail.fused.unsupported import NotConverted
from vitrail.grid import Grid
from vitrail.native.gemm import Packed, mlp
from vitrail.native.int8 import pack_int8, pack_int8_normed
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.shapes import Tokens


class Int8Attention(FusedAttention):
    """`x + scale(mixer(norm(x)))` for attention over all tokens or within windows, with int8 projections."""

    def pack(self, layers: AttentionLayers, dtype: torch.dtype) -> tuple[Packed, Packed]:
        """Quantize and pack the weights."""
        return pack_int8_normed(*layers.qkv), pack_int8(*layers.proj)


class Int8MLP(nn.Module):
    """`x + scale(mlp(norm(x)))` in int8, in one call."""

    def __init__(self, affine: NormAffine, mixer: MLP, scale: nn.Module):
        super().__init__()
        self.eps = affine.eps
        self.first = pack_int8_normed(*affine.folded(mixer.fc1))
        self.second = pack_int8(*scaled(mixer.fc2, scale))

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        return mlp(x, self.first, self.second, add=x, norm_eps=self.eps)


def int8_attention(
    norm: nn.Module, mixer: SelfAttention | WindowAttention, scale: nn.Module, dtype: torch.dtype
) -> Int8Attention:
    """Return the int8 branch of an attention.

    Raises:
        NotConverted: as `attention.fuse_attention` does.
    """
    check_attention(norm, mixer, dtype)
    return Int8Attention(norm, mixer, scale, dtype)


def int8_mlp(norm: nn.Module, mixer: MLP, scale: nn.Module, dtype: torch.dtype) -> Int8MLP:
    """Return the int8 branch of an MLP.

    Raises:
        NotConverted: no LayerNorm before it, or as `mlp.fuse_mlp` does.
    """
    check_mlp(mixer, dtype)
    affine = NormAffine.of(norm, mixer.fc1.in_features)
    if affine.eps is None:
        raise NotConverted(f"an MLP after {type(norm).__name__} has no int8 operation")
    return Int8MLP(affine, mixer, scale)


def computes_int8(model: nn.Module) -> bool:
    """Return whether any module of an optimized model has int8 GEMMs."""
    return any(isinstance(module, Int8Attention | Int8MLP) for module in model.modules())
