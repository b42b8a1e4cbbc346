"""Fused attention that mixes contents and positions by a gate (ConViT), for CPU inference."""

import torch
from torch import Tensor, nn

from vitrail.fused.grid_cache import GridCache
from vitrail.grid import Grid
from vitrail.native.attention import attend_keys
from vitrail.native.gemm import ADD, linear, pack_linear
from vitrail.parts.gated_attention import GatedAttend, RelativeOffsetScores
from vitrail.shapes import Tokens

Weights = tuple[Tensor, Tensor | None]
"""Weight and bias of a linear layer in fp32."""


class FusedGatedAttention(nn.Module):
    """`x + scale(mixer(norm(x)))` with `y = (1 - g_h) softmax(q k^T) v + g_h softmax(position) v`.

    The positional part depends on the grid alone: it is one `(N, N)` product for each head and all images.

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
        (weight, bias), inner = qkv, len(qkv[0]) // 3
        self.q = pack_linear(weight[:inner], bias[:inner], dtype)
        self.kv = pack_linear(weight[inner:], bias[inner:], dtype)
        self.proj = pack_linear(*proj, dtype)
        self.eps, self.heads, self.dtype = eps, heads, dtype
        self.position = [position.float()]  # in a list, so that it stays in fp32
        self.gate = [attend.gate.detach().float().sigmoid()]
        self.maps: GridCache[Grid, Tensor] = GridCache()

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch; the grid must have no prefix."""
        q, kv = (linear(x, part, norm_eps=self.eps, dtype=self.dtype) for part in (self.q, self.kv))
        contents = attend_keys(q, kv, self.heads)
        v = kv[..., q.shape[-1] :].unflatten(-1, (self.heads, -1)).permute(2, 1, 0, 3)  # (h, N, B, d)
        places = torch.bmm(self.maps.of(grid, lambda: self._places(grid)), v.flatten(2)).view(v.shape)
        gate = self.gate[0].to(self.dtype)[:, None]
        places = places.permute(2, 1, 0, 3)  # (B, N, h, d)
        mixed = torch.addcmul(places, contents.unflatten(-1, (self.heads, -1)), 1 - gate)
        return linear(mixed.flatten(2), self.proj, ADD, add=x)

    def _places(self, grid: Grid) -> Tensor:
        """Return `g_h softmax(position)` of a grid, `(h, N, N)`."""
        scores = self.position[0].bias(torch.zeros(1, self.heads, 1, 1), grid)
        return (self.gate[0][:, None, None] * scores.softmax(-1)).to(self.dtype)
