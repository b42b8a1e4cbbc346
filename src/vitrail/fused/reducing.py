"""Fused blocks with token reduction for CPU inference: proportional attention, with merged keys weighted by size.

The additive bias log(s) of a key that stands for s tokens is computed by an extra channel in each head:
`[q, 1] [k, log s]^T = q k^T + log s`. The QKV projection makes room for it: zero weights, and bias 1 for queries.
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
"""Native operation of each token reduction."""

EXTRA = 2
"""Channels added to each head: one for log(s), one of padding, as the bf16 kernel needs an even head_dim."""


class FusedReducingBlock(ReducingBlock):
    """Block with token reduction between fused attention and fused channel mixer: `(x, layout) -> (x, layout)`.

    Args:
        block: block to convert.
        channels: fused residual branch of its channel mixer.
        dtype: compute dtype.
    """

    def __init__(self, block: ReducingBlock, channels: nn.Module, dtype: torch.dtype):
        nn.Module.__init__(self)
        mixer = block.token_mixer
        layers, sizes = AttentionLayers.of(block.norm1, mixer, block.scale1), HeadSizes.of(mixer)  # pyright: ignore[reportArgumentType]
        self.reduction, self.channels, self.dtype = block.reduction, channels, dtype
        self.eps, self.heads, self.head_dim = layers.eps, sizes.heads, sizes.head_dim
        self.extra = EXTRA if issubclass(block.reduction.layout, MergedTokens) else 0
        weight, bias = (_pad_heads(parameter, sizes, self.extra, 0) for parameter in layers.qkv)
        if self.extra:
            bias.unflatten(0, (3, sizes.heads, -1))[0, :, sizes.head_dim] = 1
        self.qkv = pack_linear(weight, bias, dtype)
        self.proj = pack_linear(_pad_heads(layers.proj[0], sizes, self.extra, 1), layers.proj[1], dtype)
        del mixer.qkv, mixer.proj
        self.groups = AttentionGroupsCache(mixer, torch.zeros(len(bias), dtype=dtype))  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tokens, layout: ReducedTokens) -> tuple[Tensor, ReducedTokens]:
        """Mix tokens, merge or drop some of them, mix channels."""
        qkv = linear(x, self.qkv, norm_eps=self.eps, dtype=self.dtype)
        q_k_v = qkv.unflatten(-1, (3, self.heads, -1))  # (B, N, 3, h, d + extra), a view
        if self.extra and layout.tokens < layout.grid.tokens:
            q_k_v[:, :, 1, :, self.head_dim] = layout.sizes.log().to(qkv.dtype)[..., None]
        mixed = attend_groups(qkv, self.heads, self.groups.on(layout.as_grid()))
        x = linear(mixed, self.proj, ADD, add=x)
        count = self.reduction.count(layout)
        if count:
            tokens = TokenSet(x, layout.sizes, layout.source, layout.prefix)
            x, sizes, source, _ = NATIVE[type(self.reduction)](qkv, self.heads, self.head_dim, tokens, count)
            layout = replace(layout, source=source, sizes=sizes)
        return self.channels(x, layout.as_grid()), layout


def _pad_heads(weight: Tensor, sizes: HeadSizes, extra: int, axis: int) -> Tensor:
    """Pad the channels of each head with zeros along an axis."""
    heads = weight.unflatten(axis, (-1, sizes.heads, sizes.head_dim))
    shape = [*heads.shape]
    shape[axis + 2] = extra
    return torch.cat([heads, heads.new_zeros(shape)], axis + 2).flatten(axis, axis + 2)


def fuse_reducing_block(
    block: ReducingBlock, dtype: torch.dtype, unconverted: Counter[str], targets: Sequence[str]
) -> FusedReducingBlock:
    """Convert a block with token reduction.

    Args:
        block: block to convert.
        dtype: compute dtype.
        unconverted: counter of channel mixers without a fused operation.
        targets: columns of `MIXERS` for the channel mixer; attention computes in `dtype`.

    Raises:
        NotConverted: the block or its attention has unsupported parts, or low-rank projections.
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
