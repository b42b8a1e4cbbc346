"""Fused attention that mixes contents and positions by a gate (ConViT), for CPU inference."""

import torch
from torch import Tensor, nn

from vitrail.fused.grid_cache import GridCache
from vitrail.grid import Grid
from vitrail.native.attention import GatedPositions, TokenGroups, attend_gated, gated_branch
from vitrail.native.gemm import ADD, linear, pack_linear
from vitrail.native.threads import shared_evenly
from vitrail.parts.gated_attention import GatedAttend, RelativeOffsetScores
from vitrail.shapes import Tokens

Weights = tuple[Tensor, Tensor | None]
"""Weight and bias of a linear layer in fp32."""


class FusedGatedAttention(nn.Module):
    """`x + scale(mixer(norm(x)))` with `y = ((1 - g_h) softmax(q k^T) + g_h softmax(position)) v`.

    The positional part depends on the grid alone. It is added to the probabilities of the contents while they are in
    the cache, so that the values are multiplied once.

    Args:
        qkv: queries, keys and values, with the norm and the scale of the queries folded in.
        proj: output projection, with the LayerScale folded in.
        eps: of the norm.
        heads: number of heads h.
        attend: holds the gates.
        position: gives the positional scores of a grid.
        dtype: compute dtype.
    """

    def __init__(
        self,
        qkv: tuple[Tensor, Tensor],
        proj: Weights,
        eps: float,
        heads: int,
        attend: GatedAttend,
        position: RelativeOffsetScores,
        dtype: torch.dtype,
    ):
        super().__init__()
        self.qkv, self.proj = pack_linear(*qkv, dtype), pack_linear(*proj, dtype)
        self.eps, self.heads, self.dtype = eps, heads, dtype
        self.position = [position.float()]  # in a list, so that it stays in fp32
        self.gate = [attend.gate.detach().float().sigmoid()]
        self.tables: GridCache[Grid, tuple[TokenGroups, GatedPositions]] = GridCache()

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch; the grid must have no prefix."""
        groups, positions = self.tables.of(grid, lambda: self._make(grid))
        if shared_evenly(x.shape[0]):
            return gated_branch(x, self.heads, self.qkv, self.proj, groups, self.eps, positions)
        qkv = linear(x, self.qkv, norm_eps=self.eps, dtype=self.dtype)
        return linear(attend_gated(qkv, self.heads, groups, positions), self.proj, ADD, add=x)

    @torch.no_grad()
    def _make(self, grid: Grid) -> tuple[TokenGroups, GatedPositions]:
        scores = self.position[0].bias(torch.zeros(1, self.heads, 1, 1), grid)
        gate = self.gate[0]
        positions = GatedPositions.of(gate[:, None, None] * scores.softmax(-1), 1 - gate, self.dtype)
        slots = torch.arange(grid.tokens, dtype=torch.int32)[None]
        return TokenGroups(slots, torch.zeros(self.qkv.outputs, dtype=self.dtype)), positions
