"""Window attention on CUDA that caches its groups."""

import torch
from torch import Tensor, nn

from vitrail.fused.attention_groups import CudaGroupsCache
from vitrail.grid import Grid
from vitrail.kernels.window import window
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.shapes import Tokens


class CudaWindowAttention(nn.Module):
    """Window attention whose groups are computed once for each grid.

    Args:
        mixer: attention to replace; its projections may be of any type.
        dtype: dtype of the bias.
    """

    def __init__(self, mixer: WindowAttention, dtype: torch.dtype):
        super().__init__()
        self.qkv, self.proj, self.position = mixer.qkv, mixer.proj, mixer.position
        self.groups = CudaGroupsCache(mixer, dtype)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix the cells of each window; the grid must have no prefix."""
        heads, bias, mask_index, token_index = self.groups.on(grid, x.device)
        return self.proj(window(self.qkv(x), self.qkv.bias, bias, mask_index, token_index, heads))
