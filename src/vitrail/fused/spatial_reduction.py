"""Fused spatial-reduction attention, and norms between stages, for CPU inference."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.fused.convolution import check_conv
from vitrail.fused.folding import scaled
from vitrail.fused.unsupported import NotConverted, Seats, check_parts, has_hooks
from vitrail.grid import Grid
from vitrail.native.attention import attend_keys
from vitrail.native.convolution import convolve, pack_convolution
from vitrail.native.gemm import ADD, linear, pack_linear
from vitrail.native.layer_norm import layer_norm
from vitrail.native.norms import LaneNorm
from vitrail.parts.attend import Attend
from vitrail.parts.embeddings import NormStep
from vitrail.parts.spatial_reduction import ConvReduction, NoReduction, PooledReduction
from vitrail.parts.token_mixers.spatial_reduction_attention import SpatialReductionAttention
from vitrail.shapes import Tokens

SPATIAL_REDUCTION_SEATS: Seats = {
    "q": (nn.Linear,),
    "reduction": (NoReduction, ConvReduction, PooledReduction),
    "kv": (nn.Linear,),
    "attend": (Attend,),
    "proj": (nn.Linear,),
}


class FusedConvReduction:
    """One key for each square of cells: a strided convolution with its norm, in one GEMM.

    Args:
        reduction: the module.
        dtype: compute dtype.
    """

    def __init__(self, reduction: ConvReduction, dtype: torch.dtype):
        conv = reduction.conv
        check_parts(reduction, {"conv": (nn.Conv2d,), "norm": (nn.LayerNorm,)})
        check_conv(conv)
        bias = None if conv.bias is None else conv.bias.detach().float()
        self.ratio, self.norm = reduction.ratio, LaneNorm.of(reduction.norm)
        self.conv = pack_convolution(conv.weight.detach().float(), bias, reduction.ratio, 0, dtype)

    def __call__(self, x: Tokens, grid: Grid) -> Tensor:
        """Reduce; the grid must have no prefix."""
        cells = pad(grid.cells(x), (0, 0, 0, max(self.ratio - grid.w, 0), 0, max(self.ratio - grid.h, 0)))
        return convolve(cells, self.conv, self.norm).flatten(1, 2)


class FusedSpatialReduction(nn.Module):
    """`x + scale(attention(norm(x)))` with few keys: norm, projections, reduction and attention, one call each."""

    def __init__(self, norm: nn.LayerNorm, mixer: SpatialReductionAttention, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.heads, self.dtype, self.norm = mixer.num_heads, dtype, LaneNorm.of(norm)
        shrink = (mixer.q.out_features // mixer.num_heads) ** -0.5
        bias = None if mixer.q.bias is None else mixer.q.bias.detach().float() * shrink
        self.q = pack_linear(mixer.q.weight.detach().float() * shrink, bias, dtype)
        self.kv, self.proj = (
            pack_linear(mixer.kv.weight, mixer.kv.bias, dtype),
            pack_linear(*scaled(mixer.proj, scale), dtype),
        )
        reduction = mixer.reduction
        # In a list: it is called in the compute dtype, and modules are cast to that of the residual.
        fused = FusedConvReduction(reduction, dtype) if isinstance(reduction, ConvReduction) else reduction.to(dtype)
        self.reduction = [fused]

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        z = layer_norm(x, self.norm, self.dtype)
        q = linear(z, self.q, dtype=self.dtype)
        kv = linear(self.reduction[0](z, grid), self.kv, dtype=self.dtype)
        return linear(attend_keys(q, kv, self.heads), self.proj, ADD, add=x)


class FusedNormStep(nn.Module):
    """A LayerNorm as a step: `(x, grid) -> (x, grid)`."""

    def __init__(self, norm: nn.LayerNorm):
        super().__init__()
        self.norm = LaneNorm.of(norm)

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Normalise."""
        return layer_norm(x, self.norm), grid


def fuse_spatial_reduction(
    norm: nn.Module, mixer: SpatialReductionAttention, scale: nn.Module, dtype: torch.dtype
) -> FusedSpatialReduction:
    """Return the fused branch of a spatial-reduction attention.

    Raises:
        NotConverted: its norm or scale is another one, or in bf16 a head is odd.
    """
    if type(norm) is not nn.LayerNorm or norm.normalized_shape != (mixer.q.in_features,):
        raise NotConverted(f"the norm before it is {type(norm).__name__}, not LayerNorm over {mixer.q.in_features}")
    if has_hooks(mixer.reduction):
        raise NotConverted("its reduction has hooks or a forward of its own")
    width = mixer.q.out_features // mixer.num_heads
    if dtype == torch.bfloat16 and width % 2:
        raise NotConverted(f"bf16 needs an even head width, got {width}")
    return FusedSpatialReduction(norm, mixer, scale, dtype)


def fuse_norm_step(step: NormStep, dtype: torch.dtype) -> FusedNormStep:
    """Return the fused step.

    Raises:
        NotConverted: its norm is no LayerNorm over channels.
    """
    norm = step.norm
    if type(norm) is not nn.LayerNorm or len(norm.normalized_shape) != 1 or has_hooks(norm):
        raise NotConverted(f"its norm is {type(norm).__name__}, not LayerNorm over channels")
    return FusedNormStep(norm)
