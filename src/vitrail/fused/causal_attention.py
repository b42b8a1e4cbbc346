"""Fused causal attention over all tokens, for CPU inference."""

import torch
from torch import Tensor, nn

from vitrail.fused.folding import NormAffine
from vitrail.fused.norms import norm_before
from vitrail.grid import Grid
from vitrail.native.attention import attend_causal
from vitrail.native.gemm import ADD, linear, pack_linear
from vitrail.shapes import Tokens


class FusedCausalAttention(nn.Module):
    """`x + scale(mixer(norm(x)))` for attention of each token to itself and those before it.

    Args:
        norm: before the projections; a norm other than LayerNorm runs before them.
        qkv: weight and bias of queries, keys and values, the queries scaled, with the norm folded in if it can be.
        proj: weight and bias of the output projection.
        heads: heads h.
        dtype: compute dtype.
    """

    def __init__(
        self,
        norm: nn.Module,
        qkv: tuple[Tensor, Tensor],
        proj: tuple[Tensor, Tensor | None],
        heads: int,
        dtype: torch.dtype,
    ):
        super().__init__()
        affine = NormAffine.of(norm, qkv[0].shape[1])
        self.norm, self.eps = norm_before(norm, affine), affine.eps
        self.qkv, self.proj = pack_linear(*qkv, dtype), pack_linear(*proj, dtype)
        self.heads, self.dtype = heads, dtype

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        qkv = linear(self.norm(x), self.qkv, norm_eps=self.eps, dtype=self.dtype)
        return linear(attend_causal(qkv, self.heads), self.proj, ADD, add=x)
