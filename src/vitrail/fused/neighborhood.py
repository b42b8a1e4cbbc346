"""Fused neighborhood attention, for CPU inference."""

import torch
from torch import Tensor, nn

from vitrail.fused.attention import HeadSizes, check_attention
from vitrail.fused.folding import NormAffine, scaled
from vitrail.fused.grid_cache import GridCache
from vitrail.fused.unsupported import NotConverted, Seats
from vitrail.grid import Grid
from vitrail.native.gemm import ADD, linear, pack_linear
from vitrail.native.neighborhood import attend_neighbors, meeting, neighborhood_branch, run_bias
from vitrail.native.threads import shared_evenly
from vitrail.parts.positions import RelativePositionBias
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttend, NeighborhoodAttention
from vitrail.shapes import Tokens

NEIGHBORHOOD_SEATS: Seats = {
    "qkv": (nn.Linear,),
    "position": (RelativePositionBias,),
    "attend": (NeighborhoodAttend,),
    "proj": (nn.Linear,),
}


class FusedNeighborhood(nn.Module):
    """`x + scale(mixer(norm(x)))` for neighborhood attention; no cell is moved."""

    def __init__(self, norm: nn.LayerNorm, mixer: NeighborhoodAttention, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        sizes = HeadSizes.of(mixer)
        affine = NormAffine.of(norm, sizes.dim)
        assert affine.eps is not None and mixer.qkv.bias is not None
        self.eps, self.heads, self.pruned = affine.eps, sizes.heads, sizes.inner != sizes.dim
        self.kernel_size, self.dilation = mixer.attend.kernel_size, mixer.attend.dilation
        self.qkv = pack_linear(*affine.folded(mixer.qkv), dtype)
        self.proj = pack_linear(*scaled(mixer.proj, scale), dtype)
        # Padding is zero after the norm, so its key and value are the bias.
        self.padding = mixer.qkv.bias.detach()[sizes.inner :].unflatten(0, (2, self.heads, -1)).to(dtype).contiguous()
        self.table = [mixer.position.table.detach().float()]  # in a list, so that it stays in fp32 if weights are cast
        self.biases: GridCache[Grid, Tensor] = GridCache()

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch; the grid must have no prefix."""
        cut = meeting(grid, self.kernel_size, self.dilation)
        bias = self.biases.of(grid, lambda: run_bias(self.table[0], cut))
        if shared_evenly(len(x)) and not self.pruned:
            return neighborhood_branch(x, self.heads, self.qkv, self.proj, bias, cut, self.padding, self.eps)
        made = linear(x, self.qkv, norm_eps=self.eps, dtype=self.qkv.dtype)
        cells = made.unflatten(1, (grid.h, grid.w)).unflatten(3, (3, self.heads, -1))
        q, k, v = cells.unbind(3)  # (B, H, W, 3, h, d) -> 3 x (B, H, W, h, d)
        mixed = attend_neighbors(q, k, v, bias, cut, self.padding)
        return linear(mixed.flatten(3).flatten(1, 2), self.proj, ADD, add=x)  # (B, H, W, h, d) -> (B, N, C)


def fuse_neighborhood(
    norm: nn.Module, mixer: NeighborhoodAttention, scale: nn.Module, dtype: torch.dtype
) -> FusedNeighborhood:
    """Return the fused branch of a neighborhood attention.

    Raises:
        NotConverted: no LayerNorm before it, an odd head width in bf16, no bias of the projections, or an unknown
            scale.
    """
    check_attention(norm, mixer, dtype)
    assert isinstance(norm, nn.LayerNorm)
    if mixer.qkv.bias is None:
        raise NotConverted("its qkv has no bias")
    return FusedNeighborhood(norm, mixer, scale, dtype)
