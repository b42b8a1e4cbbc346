"""Attention of each cell to those around it in its fast form."""

import torch
from torch import Tensor, nn

from vitrail.fused.folding import Affine, scaled
from vitrail.fused.grid_cache import GridCache
from vitrail.fused.unsupported import NotConverted, check_exact_type
from vitrail.grid import Grid
from vitrail.native.gemm import ADD, linear, pack_linear
from vitrail.native.neighborhood import attend_neighbors, meeting, neighborhood_branch, run_bias
from vitrail.native.threads import shared_evenly
from vitrail.parts.positions import RelativePositionBias
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttend, NeighborhoodAttention
from vitrail.shapes import Tokens


class FusedNeighborhood(nn.Module):
    """`x + scale(mixer(norm(x)))` for attention to neighbours, which stay where they are."""

    def __init__(self, norm: nn.LayerNorm, mixer: NeighborhoodAttention, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        width = mixer.qkv.in_features
        affine = Affine.of(norm, width)
        assert affine.eps is not None and mixer.qkv.bias is not None
        self.eps, self.heads = affine.eps, mixer.num_heads
        self.kernel_size, self.dilation = mixer.attend.kernel_size, mixer.attend.dilation
        self.qkv = pack_linear(*affine.folded(mixer.qkv), dtype)
        self.proj = pack_linear(*scaled(mixer.proj, scale), dtype)
        # Padding is zero after the norm, so its key and value are what the bias makes of them.
        self.padding = mixer.qkv.bias.detach()[width:].unflatten(0, (2, self.heads, -1)).to(dtype).contiguous()
        self.table = [mixer.position.table.detach().float()]  # in a list, so that it stays in fp32 when weights do not
        self.biases: GridCache[Grid, Tensor] = GridCache()

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch; the grid must have no prefix."""
        cut = meeting(grid, self.kernel_size, self.dilation)
        bias = self.biases.of(grid, lambda: run_bias(self.table[0], cut))
        if shared_evenly(len(x)):
            return neighborhood_branch(x, self.heads, self.qkv, self.proj, bias, cut, self.padding, self.eps)
        made = linear(x, self.qkv, norm_eps=self.eps, dtype=self.qkv.dtype)
        cells = made.unflatten(1, (grid.h, grid.w)).unflatten(3, (3, self.heads, -1))
        q, k, v = cells.unbind(3)  # (B, H, W, 3, h, d) -> 3 x (B, H, W, h, d)
        mixed = attend_neighbors(q, k, v, bias, cut, self.padding)
        return linear(mixed.flatten(3).flatten(1, 2), self.proj, ADD, add=x)  # (B, H, W, h, d) -> (B, N, C)


def fuse_neighborhood(
    norm: nn.Module, mixer: NeighborhoodAttention, scale: nn.Module, dtype: torch.dtype
) -> FusedNeighborhood:
    """Return the fast form of a neighborhood attention's branch.

    Raises:
        NotConverted: no LayerNorm before it, heads of odd width in bf16, or an unknown position, layer, way to attend
            or scale.
    """
    if type(norm) is not nn.LayerNorm:
        raise NotConverted(f"the norm before it is {type(norm).__name__}, not LayerNorm")
    if type(mixer.position) is not RelativePositionBias or mixer.qkv.bias is None:
        raise NotConverted("its position or its queries, keys and values are of another kind")
    check_exact_type(NeighborhoodAttend, mixer.attend)
    check_exact_type(nn.Linear, mixer.qkv, mixer.proj)
    if dtype == torch.bfloat16 and mixer.qkv.in_features // mixer.num_heads % 2:
        raise NotConverted("heads of odd width cannot be read in pairs")
    return FusedNeighborhood(norm, mixer, scale, dtype)
