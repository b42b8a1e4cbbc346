"""Fused cosine attention within windows with a norm at the end of the branch, for CPU inference."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from vitrail.fused.attention import WINDOW_SEATS, HeadSizes
from vitrail.fused.attention_groups import AttentionGroupsCache
from vitrail.fused.folding import NormAffine
from vitrail.fused.unsupported import NotConverted, Seats
from vitrail.grid import Grid
from vitrail.native.attention import cosine_branch
from vitrail.native.gemm import pack_linear
from vitrail.native.norms import LaneNorm
from vitrail.parts.attend import merge_heads, split_heads
from vitrail.parts.cosine import CosineNorm
from vitrail.parts.log_spaced_position import LogSpacedPositionBias
from vitrail.parts.query_value_bias import QueryValueBias
from vitrail.parts.token_mixers.cosine_window_attention import CosineWindowAttention
from vitrail.shapes import Tokens

COSINE_SEATS: Seats = {
    **WINDOW_SEATS,
    "qkv": (QueryValueBias,),
    "position": (LogSpacedPositionBias,),
    "qk_norm": (CosineNorm,),
}


class FusedCosineAttention(nn.Module):
    """`x + norm(mixer(x))` for cosine attention within windows.

    Args:
        mixer: the attention.
        norm: LayerNorm over the channels of a token.
        dtype: compute dtype.
    """

    def __init__(self, mixer: CosineWindowAttention, norm: nn.LayerNorm, dtype: torch.dtype):
        super().__init__()
        qkv = mixer.qkv
        self.heads, self.norm = mixer.num_heads, LaneNorm.of(norm)
        self.scales = mixer.qk_norm.log_scale.detach().float().clamp(max=mixer.qk_norm.max_log_scale).exp().flatten()
        self.qkv = pack_linear(qkv.linear.weight, qkv.bias, dtype)
        self.proj = pack_linear(mixer.proj.weight, mixer.proj.bias, dtype)
        padding = self._normalised(qkv.bias.detach().float(), mixer.qk_norm).to(dtype)
        del mixer.qkv, mixer.proj
        mixer.position = deepcopy(mixer.position)  # its layers are shared with the source, and biases are made later
        self.groups = AttentionGroupsCache(mixer, padding)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        return cosine_branch(x, self.heads, self.qkv, self.proj, self.groups.on(grid), self.scales, self.norm)

    def _normalised(self, projected: Tensor, norm: CosineNorm) -> Tensor:
        """Return a projection `(3 C,)` with queries and keys as the scores take them."""
        q, k, v = split_heads(projected[None, None], self.heads)
        unit_q, unit_k = norm(q, k)
        return torch.cat([merge_heads(part) for part in (unit_q / q.shape[-1] ** 0.5, unit_k, v)], dim=-1)[0, 0]


def fuse_cosine_attention(
    norm: nn.Module, mixer: CosineWindowAttention, scale: nn.Module, dtype: torch.dtype
) -> FusedCosineAttention:
    """Return the fused branch of a cosine attention whose scale is a LayerNorm.

    Raises:
        NotConverted: a norm before it, none after it, or in bf16 an odd width.
    """
    sizes = HeadSizes.of(mixer)
    if type(norm) is not nn.Identity:
        raise NotConverted(f"the norm before it is {type(norm).__name__}, not the identity")
    if not isinstance(scale, nn.LayerNorm) or NormAffine.of(scale, sizes.dim).eps is None:
        raise NotConverted(f"its scale is {type(scale).__name__}, not LayerNorm over {sizes.dim} channels")
    if dtype == torch.bfloat16 and (sizes.head_dim % 2 or sizes.dim % 2):
        raise NotConverted(f"bf16 needs even widths, got {sizes.dim} channels and heads of {sizes.head_dim}")
    return FusedCosineAttention(mixer, scale, dtype)


def cosine_unsupported_reason(mixer: CosineWindowAttention) -> str | None:
    """Return why fused code does not compute a cosine attention with known parts, or None."""
    layer = mixer.qkv.linear
    if type(layer) is not nn.Linear:
        return f"its qkv.linear is {type(layer).__name__}"
    if layer.bias is not None or len(mixer.qkv._modules) > 1:
        return "its qkv has a further bias or part"
    return HeadSizes.of(mixer).unsupported_reason(mixer)
