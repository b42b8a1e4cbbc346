"""Window attention on a GPU that remembers who meets on a grid."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitrail.fused.grid_cache import GridCache
from vitrail.grid import Grid
from vitrail.kernels.window import window
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.shapes import Tokens


class Table(NamedTuple):
    """Addends, which of them each window has, and which token sits in which place."""

    bias: Tensor | None
    mask_index: Tensor
    token_index: Tensor


class CudaWindowAttention(nn.Module):
    """Window attention whose tables are made once for each grid: the plain one makes them anew in some twenty orders.

    Args:
        mixer: what to compute; it is not to be used any more.
        dtype: of the addends.
    """

    def __init__(self, mixer: WindowAttention, dtype: torch.dtype):
        super().__init__()
        self.qkv, self.proj, self.heads, self.dtype = mixer.qkv, mixer.proj, mixer.num_heads, dtype
        self.cut, self.window_size, self.shift = mixer.cut, mixer.window_size, mixer.shift
        self.position = mixer.position
        self.tables: GridCache[tuple[Grid, torch.device], Table] = GridCache()

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix the cells of each window; the grid must have no prefix."""
        table = self.table(grid, x.device)
        qkv = self.qkv(x)
        return self.proj(window(qkv, self.qkv.bias, table.bias, table.mask_index, table.token_index, self.heads))

    def table(self, grid: Grid, device: torch.device) -> Table:
        """Return the table of a grid."""
        return self.tables.of((grid, device), lambda: self._table(grid, device))

    @torch.inference_mode(False)  # whoever comes next may ask for gradients
    @torch.no_grad()
    def _table(self, grid: Grid, device: torch.device) -> Table:
        cut = self.cut.of(grid, self.window_size, self.shift)
        like = torch.zeros(1, self.heads, grid.tokens, 1, device=device)
        bias = cut.bias_plus_mask(self.position.bias(like, Grid(*cut.window)), like)
        bias = None if bias is None else bias.to(self.dtype).expand(-1, self.heads, -1, -1).contiguous()
        return Table(bias, cut.mask_index(device), cut.token_index(device))
