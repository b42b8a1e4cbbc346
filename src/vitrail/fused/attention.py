"""Fused attention over all tokens or within windows, for CPU inference."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitrail.fused.attention_groups import AttentionGroupsCache
from vitrail.fused.causal_attention import FusedCausalAttention
from vitrail.fused.folding import NormAffine, scaled
from vitrail.fused.gated_attention import FusedGatedAttention
from vitrail.fused.head_mixing import FusedHeadMixing
from vitrail.fused.low_rank import FusedProductAttention, has_products
from vitrail.fused.rotary_attention import FusedRotaryAttention
from vitrail.fused.unsupported import NotConverted, Seats
from vitrail.grid import Grid
from vitrail.native.attention import attend_groups, attention_branch
from vitrail.native.gemm import ADD, Packed, linear, pack_linear
from vitrail.native.threads import shared_evenly
from vitrail.parts.attend import Attend, NoQKNorm
from vitrail.parts.causal_attend import CausalAttend
from vitrail.parts.gated_attention import GatedAttend, RelativeOffsetScores
from vitrail.parts.grid_rotation import GridRotation
from vitrail.parts.head_mixing import HeadMixingAttend
from vitrail.parts.positions import NoPosition, RelativePositionBias
from vitrail.parts.query_value_bias import QueryValueBias
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.window_attention import WindowAttend, WindowAttention
from vitrail.shapes import Tokens

WINDOW_SEATS: Seats = {
    "qkv": (nn.Linear,),
    "position": (NoPosition, RelativePositionBias),  # others may rotate, or read the queries
    "attend": (WindowAttend,),
    "proj": (nn.Linear,),
}
SEATS: Seats = {**WINDOW_SEATS, "attend": (Attend,), "qk_norm": (NoQKNorm,)}
OTHER_MAPS: Seats = {
    "qkv": (QueryValueBias,),
    "position": (RelativeOffsetScores, GridRotation),
    "attend": (GatedAttend, HeadMixingAttend, CausalAttend),
}
"""Further parts, which only CPU inference computes."""


class HeadSizes(NamedTuple):
    """Widths of an attention, read from its projections: heads may have been pruned.

    Args:
        heads: number of heads h.
        dim: channels C of the tokens.
        inner: channels `h d` of queries, of keys and of values.
    """

    heads: int
    dim: int
    inner: int

    @classmethod
    def of(cls, mixer: SelfAttention | WindowAttention | NeighborhoodAttention) -> "HeadSizes":
        """Read them.

        Example:
            >>> mixer = SelfAttention(12, num_heads=3)
            >>> mixer.qkv, mixer.proj, mixer.num_heads = nn.Linear(12, 24), nn.Linear(8, 12), 2  # without one head
            >>> HeadSizes.of(mixer), HeadSizes.of(mixer).head_dim
            (HeadSizes(heads=2, dim=12, inner=8), 4)
        """
        return cls(mixer.num_heads, mixer.qkv.in_features, mixer.proj.in_features)

    @property
    def head_dim(self) -> int:
        """Channels d of a head."""
        return self.inner // self.heads

    def unsupported_reason(self, mixer: SelfAttention | WindowAttention | NeighborhoodAttention) -> str | None:
        """Return why the projections do not fit together, or None."""
        fits = mixer.qkv.out_features == 3 * self.inner and self.inner % self.heads == 0
        if fits and mixer.proj.out_features == self.dim:
            return None
        return f"its projections do not hold {self.heads} heads each of queries, keys and values"


class AttentionLayers(NamedTuple):
    """Projections of an attention in fp32, with norm, query scale and LayerScale folded in.

    Args:
        qkv: weight and bias of queries, keys and values, the queries scaled by 1 / sqrt(d).
        proj: weight and bias of the output projection.
        padding: queries, keys and values of padding tokens, which are zero after the norm.
        eps: of the norm without scale and shift; None for a norm that is not folded in.
    """

    qkv: tuple[Tensor, Tensor]
    proj: tuple[Tensor, Tensor | None]
    padding: Tensor
    eps: float | None

    @classmethod
    def of(cls, norm: nn.Module, mixer: SelfAttention | WindowAttention, scale: nn.Module) -> "AttentionLayers":
        """Fold a residual branch."""
        sizes = HeadSizes.of(mixer)
        affine = NormAffine.of(norm, sizes.dim)
        queries = torch.ones(3 * sizes.inner, dtype=torch.float32, device="cpu")
        queries[: sizes.inner] = sizes.head_dim**-0.5
        weight, bias = affine.folded(mixer.qkv)
        padding = torch.zeros_like(queries) if mixer.qkv.bias is None else mixer.qkv.bias.detach().float()
        return cls(
            (weight * queries[:, None], bias * queries), scaled(mixer.proj, scale), padding * queries, affine.eps
        )


class FusedAttention(nn.Module):
    """`x + scale(mixer(norm(x)))` for attention over all tokens or within windows.

    Tokens are not moved: an index lists those of each group.
    """

    def __init__(self, norm: nn.Module, mixer: SelfAttention | WindowAttention, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        layers = AttentionLayers.of(norm, mixer, scale)
        assert layers.eps is not None
        self.qkv, self.proj = self.pack(layers, dtype)
        self.eps, self.heads, self.dtype = layers.eps, mixer.num_heads, dtype
        del mixer.qkv, mixer.proj
        self.groups = AttentionGroupsCache(mixer, layers.padding.to(dtype))

    def pack(self, layers: AttentionLayers, dtype: torch.dtype) -> tuple[Packed, Packed]:
        """Pack the weights for GEMMs."""
        return pack_linear(*layers.qkv, dtype), pack_linear(*layers.proj, dtype)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        groups = self.groups.on(grid)
        if shared_evenly(x.shape[0] * groups.slots.shape[0]):
            return attention_branch(x, self.heads, self.qkv, self.proj, groups, self.eps)
        qkv = linear(x, self.qkv, norm_eps=self.eps, dtype=self.dtype)
        mixed = attend_groups(qkv, self.heads, groups)
        return linear(mixed, self.proj, ADD, add=x)


def fuse_attention(
    norm: nn.Module, mixer: SelfAttention | WindowAttention, scale: nn.Module, dtype: torch.dtype
) -> nn.Module:
    """Return the fused branch of an attention.

    Raises:
        NotConverted: as `check_attention`, or an unknown scale, or gates or mixed heads with other positions.
    """
    if isinstance(mixer.attend, CausalAttend):
        return _fuse_causal(norm, mixer, scale, dtype)
    check_attention(norm, mixer, dtype)
    if isinstance(mixer.qkv, QueryValueBias) and type(mixer.qkv.linear) is not nn.Linear:
        raise NotConverted(f"its qkv has a {type(mixer.qkv.linear).__name__}")
    other = isinstance(mixer.attend, GatedAttend | HeadMixingAttend)
    if other or isinstance(mixer.position, RelativeOffsetScores | GridRotation):
        return _fuse_other_maps(norm, mixer, scale, dtype)
    if has_products(mixer):
        return FusedProductAttention(NormAffine.of(norm, HeadSizes.of(mixer).dim), mixer, scale, dtype)
    return FusedAttention(norm, mixer, scale, dtype)


def _fuse_causal(
    norm: nn.Module, mixer: SelfAttention | WindowAttention, scale: nn.Module, dtype: torch.dtype
) -> FusedCausalAttention:
    """Return the fused branch of a causal attention, whatever its norm is."""
    if has_products(mixer) or type(mixer.position) is not NoPosition:
        raise NotConverted(f"causal attention with {type(mixer.position).__name__} or products of layers")
    _check_head_width(HeadSizes.of(mixer), dtype)
    layers = AttentionLayers.of(norm, mixer, scale)
    return FusedCausalAttention(norm, layers.qkv, layers.proj, mixer.num_heads, dtype)


def _fuse_other_maps(
    norm: nn.Module, mixer: SelfAttention | WindowAttention, scale: nn.Module, dtype: torch.dtype
) -> FusedGatedAttention | FusedHeadMixing | FusedRotaryAttention:
    """Return the fused branch of an attention whose maps are not the softmax alone."""
    position, attend = mixer.position, mixer.attend
    if has_products(mixer):
        raise NotConverted("its projections are products of two layers")
    layers = AttentionLayers.of(norm, mixer, scale)
    assert layers.eps is not None
    given = layers.qkv, layers.proj, layers.eps, mixer.num_heads
    if isinstance(attend, GatedAttend) and isinstance(position, RelativeOffsetScores):
        return FusedGatedAttention(*given, attend, position, dtype)
    if isinstance(attend, HeadMixingAttend) and type(position) is NoPosition:
        return FusedHeadMixing(*given, attend, dtype)
    if isinstance(position, GridRotation) and type(attend) is Attend:
        return FusedRotaryAttention(*given, position, dtype)
    raise NotConverted(f"its attend is {type(attend).__name__}, with {type(position).__name__}")


def check_attention(
    norm: nn.Module, mixer: SelfAttention | WindowAttention | NeighborhoodAttention, dtype: torch.dtype
) -> None:
    """Check the norm and the head width of an attention.

    Raises:
        NotConverted: no LayerNorm before it, or in bf16 an odd head width.
    """
    sizes = HeadSizes.of(mixer)
    if NormAffine.of(norm, sizes.dim).eps is None:
        raise NotConverted(f"the norm before it is {type(norm).__name__}, not LayerNorm over {sizes.dim} channels")
    _check_head_width(sizes, dtype)


def _check_head_width(sizes: HeadSizes, dtype: torch.dtype) -> None:
    if dtype == torch.bfloat16 and sizes.head_dim % 2:
        raise NotConverted(f"bf16 needs an even head width, got {sizes.head_dim}")


def attention_unsupported_reason(mixer: SelfAttention | WindowAttention | NeighborhoodAttention) -> str | None:
    """Return why fused code does not compute an attention with known parts, or None."""
    return HeadSizes.of(mixer).unsupported_reason(mixer)
