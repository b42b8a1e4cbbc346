"""Attention groups of a mixer on a grid: which tokens attend to each other, and the bias and mask of each group."""

from typing import Any

import torch
from torch import Tensor

from vitrail.fused.grid_cache import GridCache
from vitrail.grid import Grid
from vitrail.kernels.fused_types import AttentionGroups
from vitrail.native.attention import TokenGroups, lane_bias
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.window_attention import WindowAttention


def attention_groups(mixer: SelfAttention | WindowAttention, grid: Grid, like: Tensor) -> AttentionGroups:
    """Return the groups of a mixer; gradients flow to its position.

    Args:
        mixer: attention over all tokens or within windows.
        grid: layout of the tokens.
        like: tensor of the dtype and device to use; its values are not read.

    Example:
        >>> attention_groups(SelfAttention(8, num_heads=2), Grid(2, 2), _like()).token_index.tolist()
        [[0, 1, 2, 3]]
    """
    if isinstance(mixer, SelfAttention):
        bias = mixer.position.bias(like, grid)
        tokens = torch.arange(grid.tokens, device=like.device)[None]
        return AttentionGroups(mixer.num_heads, None if bias is None else bias[None], tokens.new_zeros(1), tokens)
    cut = mixer.cut.of(grid, mixer.window_size, mixer.shift)
    bias = cut.bias_plus_mask(mixer.position.bias(like, Grid(*cut.window)), like=like)
    return AttentionGroups(mixer.num_heads, bias, cut.mask_index(like.device), cut.token_index(like.device))


class AttentionGroupsCache:
    """Packed groups of the last few grids, for CPU inference.

    It is no module, so the mixer's parameters stay in fp32: biases are added to scores in fp32.

    Args:
        mixer: mixer that defines the groups.
        padding: `(3 C,)`, queries, keys and values of padding.
    """

    def __init__(self, mixer: SelfAttention | WindowAttention, padding: Tensor):
        self.mixer, self.padding = mixer, padding
        self.tables: GridCache[Grid, TokenGroups] = GridCache()

    def on(self, grid: Grid) -> TokenGroups:
        """Return the groups of a grid."""
        return self.tables.of(grid, lambda: self._pack(grid))

    @torch.no_grad()
    def _pack(self, grid: Grid) -> TokenGroups:
        heads, bias, mask_index, token_index = attention_groups(self.mixer, grid, _like())
        tokens = token_index.int().contiguous()
        if bias is None:
            return TokenGroups(tokens, self.padding)
        packed = lane_bias(bias.expand(-1, heads, -1, -1))
        return TokenGroups(tokens, self.padding, mask_index.int().contiguous(), packed)


class CudaGroupsCache:
    """Groups of the last few grids, for CUDA: computed at every call they take about twenty kernel launches.

    Args:
        mixer: mixer that defines the groups; its position moves with the model.
        dtype: dtype of the bias.
    """

    def __init__(self, mixer: WindowAttention, dtype: torch.dtype):
        self.mixer, self.dtype = mixer, dtype
        self.tables: GridCache[tuple[Grid, torch.device], AttentionGroups] = GridCache()

    def on(self, grid: Grid, device: torch.device) -> AttentionGroups:
        """Return the groups of a grid on a device."""
        return self.tables.of((grid, device), lambda: self._make(grid, device))

    @torch.inference_mode(False)  # a later call may need gradients
    @torch.no_grad()
    def _make(self, grid: Grid, device: torch.device) -> AttentionGroups:
        groups = attention_groups(self.mixer, grid, _like(device))
        bias = groups.bias
        if bias is not None:
            bias = bias.to(self.dtype).expand(-1, groups.heads, -1, -1).contiguous()
        return groups._replace(bias=bias)


def _like(device: Any = "cpu") -> Tensor:
    """Return the fp32 tensor that positions take dtype and device from."""
    return torch.zeros(1, 1, 1, 1, dtype=torch.float32, device=device)
