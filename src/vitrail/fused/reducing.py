"""Fused blocks that reduce their tokens, for CPU inference: attention whose keys count as often as they have places.

The logarithm of a key's size is one more channel of it, and 1 the same channel of every query, so that q k^T has it:
`[q, 1] [k, log s]^T = q k^T + log s`. Both come out of the projection, whose weights for these channels are zero.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from vitrail.fused.attention import SEATS, AttentionLayers, HeadSizes, attention_unsupported_reason, check_attention
from vitrail.fused.attention_groups import AttentionGroupsCache
from vitrail.fused.blocks import BRANCHES, block_unsupported_reason, fuse_branch
from vitrail.fused.low_rank import with_products
from vitrail.fused.unsupported import NotConverted, has_hooks, parts_unsupported_reason, require_libraries
from vitrail.native.attention import attend_groups
from vitrail.native.gemm import ADD, linear, pack_linear
from vitrail.native.token_reduction import TokenSet, keep_tokens, merge_tokens
from vitrail.parts.token_reduction import KeepAttended, MergedTokens, MergeSimilar, ReducedTokens, ReducingBlock
from vitrail.shapes import Tokens

NATIVE = {MergeSimilar: merge_tokens, KeepAttended: keep_tokens}
"""Reductions that are computed in one call."""

EXTRA = 2
"""Channels added to each head, of which one is used: bf16 needs an even number."""


class FusedReducingBlock(ReducingBlock):
    """A block that reduces its tokens between two fused branches: `(x, layout) -> (x, layout)`.

    Args:
        block: block to convert.
        channels: fused branch of its channel mixer.
        dtype: compute dtype.
    """

    def __init__(self, block: ReducingBlock, channels: nn.Module, dtype: torch.dtype):
        nn.Module.__init__(self)
        mixer = block.token_mixer
        layers, sizes = AttentionLayers.of(block.norm1, mixer, block.scale1), HeadSizes.of(mixer)  # pyright: ignore[reportArgumentType]
        self.reduction, self.channels, self.dtype = block.reduction, channels, dtype
        self.eps, self.heads, self.head_dim = layers.eps, sizes.heads, sizes.head_dim
        self.extra = EXTRA if issubclass(block.reduction.layout, MergedTokens) else 0
        weight, bias = (_widened(part, sizes, self.extra, 0) for part in layers.qkv)
        if self.extra:
            bias.unflatten(0, (3, sizes.heads, -1))[0, :, sizes.head_dim] = 1
        self.qkv = pack_linear(weight, bias, dtype)
        self.proj = pack_linear(_widened(layers.proj[0], sizes, self.extra, 1), layers.proj[1], dtype)
        del mixer.qkv, mixer.proj
        self.groups = AttentionGroupsCache(mixer, torch.zeros(len(bias), dtype=dtype))  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tokens, layout: ReducedTokens) -> tuple[Tensor, ReducedTokens]:
        """Mix tokens, pool some of them, mix channels."""
        qkv = linear(x, self.qkv, norm_eps=self.eps, dtype=self.dtype)
        parts = qkv.unflatten(-1, (3, self.heads, -1))  # (B, N, 3, h, d + extra)
        if self.extra and layout.tokens < layout.grid.tokens:
            parts[:, :, 1, :, self.head_dim] = layout.sizes.log().to(qkv.dtype)[..., None]
        mixed = attend_groups(qkv, self.heads, self.groups.on(layout.as_grid()))
        x = linear(mixed, self.proj, ADD, add=x)
        count = self.reduction.count(layout)
        if count:
            tokens = TokenSet(x, layout.sizes, layout.source, layout.prefix)
            x, sizes, source, _ = NATIVE[type(self.reduction)](qkv, self.heads, self.head_dim, tokens, count)
            layout = replace(layout, source=source, sizes=sizes)
        return self.channels(x, layout.as_grid()), layout


def _widened(weight: Tensor, sizes: HeadSizes, extra: int, axis: int) -> Tensor:
    """Add zeros after the channels of each head along an axis."""
    heads = weight.unflatten(axis, (-1, sizes.heads, sizes.head_dim))
    shape = [*heads.shape]
    shape[axis + 2] = extra
    return torch.cat([heads, heads.new_zeros(shape)], axis + 2).flatten(axis, axis + 2)


def fuse_reducing_block(
    block: ReducingBlock, dtype: torch.dtype, unconverted: Counter[str], targets: Sequence[str]
) -> FusedReducingBlock:
    """Return the fused block.

    Args:
        block: block to convert.
        dtype: compute dtype.
        unconverted: counts a channel mixer without a fused operation.
        targets: columns of `MIXERS` for the channel mixer; the attention computes in `dtype`.

    Raises:
        NotConverted: the block or its attention has unknown parts, or layers that are products.
    """
    mixer = block.token_mixer
    reason = block_unsupported_reason(block) or parts_unsupported_reason(mixer, with_products(SEATS))
    reason = reason or attention_unsupported_reason(mixer)  # pyright: ignore[reportArgumentType]
    if reason is None and not (type(mixer.qkv) is nn.Linear is type(mixer.proj)):
        reason = "its layers are products"
    if reason is None and type(block.reduction) not in NATIVE:
        reason = f"{type(block.reduction).__name__} has no native operation"
    if reason is None and has_hooks(block.norm1, block.scale1):
        reason = "its norm or scale has hooks or a forward of its own"
    if reason is not None:
        raise NotConverted(reason)
    check_attention(block.norm1, mixer, dtype)  # pyright: ignore[reportArgumentType]
    require_libraries("attention", "token_reduction")
    names = BRANCHES["channel mixer"]
    channels = fuse_branch("channel mixer", [getattr(block, name) for name in names], dtype, unconverted, targets)
    return FusedReducingBlock(block, channels, dtype)
