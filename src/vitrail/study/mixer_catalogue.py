"""The token mixers that fit the MetaFormer socket on a square map, by name; each builds the mixer of one block."""

from collections.abc import Callable

from torch import nn

from vitrail.grid import Grid
from vitrail.parts.causal_attend import CausalAttend
from vitrail.parts.spatial_reduction import ConvReduction, PooledReduction
from vitrail.parts.token_mixers.bottleneck_attention import BottleneckAttention, RelativeLogits
from vitrail.parts.token_mixers.cosine_window_attention import CosineWindowAttention
from vitrail.parts.token_mixers.cross_covariance import CrossCovarianceAttention
from vitrail.parts.token_mixers.depthwise_convolution import DepthwiseConvolution
from vitrail.parts.token_mixers.halo_attention import StandAloneAttention
from vitrail.parts.token_mixers.identity import IdentityMixing
from vitrail.parts.token_mixers.linformer import LinformerAttention
from vitrail.parts.token_mixers.local_patch_interaction import LocalPatchInteraction
from vitrail.parts.token_mixers.lsh_attention import LSHAttention
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention
from vitrail.parts.token_mixers.performer import PerformerAttention
from vitrail.parts.token_mixers.pooling import Pooling
from vitrail.parts.token_mixers.random_mixing import RandomMixing
from vitrail.parts.token_mixers.retention import Retention
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.separable_convolution import SeparableConvolution
from vitrail.parts.token_mixers.sparse_attention import FixedSparseAttention
from vitrail.parts.token_mixers.spatial_reduction_attention import SpatialReductionAttention
from vitrail.parts.token_mixers.star_attention import StarTransformer
from vitrail.parts.token_mixers.token_mlp import TokenMLP
from vitrail.parts.token_mixers.window_attention import WindowAttention

HEADS = 4
WINDOW = 4

Build = Callable[[int, int, int], nn.Module]
"""From channels C, side of the map in cells and index of the block to a mixer."""

MIXERS: dict[str, Build] = {
    "identity": lambda dim, side, i: IdentityMixing(),
    "pooling": lambda dim, side, i: Pooling(3),
    "random matrix": lambda dim, side, i: RandomMixing(Grid(side, side)),
    "token MLP": lambda dim, side, i: TokenMLP(Grid(side, side), side * side // 2),
    "depthwise convolution": lambda dim, side, i: DepthwiseConvolution(dim, 7),
    "separable convolution": lambda dim, side, i: SeparableConvolution(dim),
    "local patch interaction": lambda dim, side, i: LocalPatchInteraction(dim),
    "self-attention": lambda dim, side, i: SelfAttention(dim, HEADS),
    "causal attention": lambda dim, side, i: SelfAttention(dim, HEADS, attend=CausalAttend()),
    "relative attention": lambda dim, side, i: BottleneckAttention(
        dim, HEADS, RelativeLogits(dim // HEADS, (side, side), (dim // HEADS) ** -0.5)
    ),
    "reduced attention": lambda dim, side, i: SpatialReductionAttention(dim, HEADS, ConvReduction(dim, 2)),
    "pooled attention": lambda dim, side, i: SpatialReductionAttention(dim, HEADS, PooledReduction(dim, size=4)),
    "shifted windows": lambda dim, side, i: WindowAttention(dim, HEADS, WINDOW, i % 2 * (WINDOW // 2)),
    "cosine windows": lambda dim, side, i: CosineWindowAttention(dim, HEADS, WINDOW, i % 2 * (WINDOW // 2)),
    "neighborhoods": lambda dim, side, i: NeighborhoodAttention(dim, HEADS, 3),
    "dilated neighborhoods": lambda dim, side, i: NeighborhoodAttention(dim, HEADS, 3, dilation=1 + i % 2),
    "stand-alone attention": lambda dim, side, i: StandAloneAttention(dim, HEADS, 3),
    "cross-covariance": lambda dim, side, i: CrossCovarianceAttention(dim, HEADS),
    "Linformer": lambda dim, side, i: LinformerAttention(dim, HEADS, side * side, rank=16),
    "Performer": lambda dim, side, i: PerformerAttention(dim, HEADS, features=32),
    "LSH attention": lambda dim, side, i: LSHAttention(dim, HEADS, buckets=4, rounds=2, chunk=16),
    "sparse attention": lambda dim, side, i: FixedSparseAttention(dim, HEADS, block=side, summary=2),
    "star": lambda dim, side, i: StarTransformer(dim, HEADS),
    "retention": lambda dim, side, i: Retention(dim, HEADS),
}
"""Twenty-four mixers; those without parameters or heads are the controls."""
