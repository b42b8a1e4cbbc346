"""Fused attention over all tokens with rotary positions, for CPU inference."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vitrail.fused.grid_cache import GridCache
from vitrail.grid import Grid
from vitrail.native.attention import Rotation, TokenGroups, attend_groups, rotate, rotated_branch
from vitrail.native.gemm import ADD, linear, pack_linear
from vitrail.native.threads import shared_evenly
from vitrail.parts.grid_rotation import GridRotation
from vitrail.shapes import Tokens


class FusedRotaryAttention(nn.Module):
    """`x + scale(mixer(norm(x)))` for attention whose queries and keys are turned by the place of their cell.

    Args:
        qkv: weight and bias of queries, keys and values, the queries scaled and the norm folded in.
        proj: weight and bias of the output projection.
        eps: of the norm without scale and shift.
        heads: heads h.
        position: the rotation.
        dtype: compute dtype.
    """

    def __init__(
        self,
        qkv: tuple[Tensor, Tensor],
        proj: tuple[Tensor, Tensor | None],
        eps: float,
        heads: int,
        position: GridRotation,
        dtype: torch.dtype,
    ):
        super().__init__()
        self.qkv, self.proj = pack_linear(*qkv, dtype), pack_linear(*proj, dtype)
        self.eps, self.heads, self.dtype = eps, heads, dtype
        self.position = [position]  # in a list: its angles stay in fp32
        self.tables: GridCache[Grid, tuple[TokenGroups, Rotation]] = GridCache()

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        groups, turn = self.tables.of(grid, lambda: self._make(grid))
        if shared_evenly(x.shape[0]):
            return rotated_branch(x, self.heads, self.qkv, self.proj, groups, self.eps, turn)
        qkv = rotate(linear(x, self.qkv, norm_eps=self.eps, dtype=self.dtype), self.heads, turn)
        return linear(attend_groups(qkv, self.heads, groups), self.proj, ADD, add=x)

    @torch.no_grad()
    def _make(self, grid: Grid) -> tuple[TokenGroups, Rotation]:
        slots = torch.arange(grid.tokens, dtype=torch.int32)[None]
        padding = torch.zeros(self.qkv.outputs, dtype=self.dtype)
        return TokenGroups(slots, padding), rotation_of(self.position[0], grid)


def rotation_of(position: GridRotation, grid: Grid) -> Rotation:
    """Return the angles of a rotation on a grid.

    Example:
        >>> rotation_of(GridRotation(4, reference=2), Grid(1, 1, prefix=1)).cos.tolist()
        [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    """
    return rotation_by(lambda x: position.rotate(x, x, grid)[0], grid.tokens, position.head_dim)


def rotation_by(turn: Callable[[Tensor], Tensor], tokens: int, width: int) -> Rotation:
    """Return the angles of a function that turns pairs of channels, `(1, 1, N, d)`: (1, 0) becomes (cos, sin)."""
    unit = torch.zeros(1, 1, tokens, width)
    unit[..., ::2] = 1
    cos, sin = turn(unit)[0, 0].unflatten(-1, (-1, 2)).unbind(-1)  # (N, d / 2) each
    return Rotation(cos.repeat_interleave(2, -1).contiguous(), torch.stack([-sin, sin], -1).flatten(-2).contiguous())
