"""Conversion of each layer type for CPU inference; mixers are in `table.MIXERS`. To add a layer, add a row."""

from functools import partial

from torch import nn

from vitrail.fused.color_tokens import fuse_color_tokens
from vitrail.fused.conversion import Conversion, Conversions
from vitrail.fused.convolution import (
    fuse_conv_merging,
    fuse_normed_conv_merging,
    fuse_overlapping_patches,
    fuse_pre_norm_conv_merging,
    fuse_tokenizer,
)
from vitrail.fused.cross_attention import CROSS_SEATS, fuse_cross_layer
from vitrail.fused.depthwise import fuse_convnext_block, fuse_peg
from vitrail.fused.linear import fuse_linear
from vitrail.fused.patches import PATCH_SEATS, fuse_map_patches, fuse_patch_embedding, fuse_patch_merging
from vitrail.fused.spatial_reduction import fuse_norm_step
from vitrail.fused.stages import fuse_stage
from vitrail.fused.stems import fuse_conv_patches, fuse_pooled_tokenizer, fuse_stem
from vitrail.parts.blocks import ConvNeXtBlock
from vitrail.parts.color_tokens import ColorTokens
from vitrail.parts.conv_patches import ConvPatches
from vitrail.parts.embeddings import (
    ConvStem,
    ConvTokenizer,
    MapPatches,
    NormStep,
    OverlappingPatchEmbedding,
    PatchEmbedding,
)
from vitrail.parts.latents import CrossLayer
from vitrail.parts.merging import ConvMerging, NormedConvMerging, PatchMerging, PreNormConvMerging
from vitrail.parts.peg import PEG
from vitrail.parts.pooled_conv_tokenizer import PooledConvTokenizer
from vitrail.parts.stages import Stage
from vitrail.preprocess import Preprocess

CONVERSIONS: Conversions = {
    nn.Linear: Conversion(fuse_linear),
    PatchEmbedding: Conversion(fuse_patch_embedding, ("patches",), PATCH_SEATS),
    MapPatches: Conversion(fuse_map_patches, ("convolution",), {"patches": (PatchEmbedding,)}),
    PatchMerging: Conversion(fuse_patch_merging, ("patches",), {"norm": (nn.LayerNorm,), "reduction": (nn.Linear,)}),
    ConvTokenizer: Conversion(fuse_tokenizer, ("convolution",), {"proj": (nn.Sequential,), "norm": (nn.LayerNorm,)}),
    OverlappingPatchEmbedding: Conversion(fuse_overlapping_patches, ("convolution",), {"proj": (nn.Conv2d,)}),
    ConvMerging: Conversion(fuse_conv_merging, ("convolution",), {"reduction": (nn.Conv2d,)}),
    NormedConvMerging: Conversion(
        fuse_normed_conv_merging, ("convolution",), {"reduction": (nn.Conv2d,), "norm": (nn.LayerNorm,)}
    ),
    PreNormConvMerging: Conversion(
        fuse_pre_norm_conv_merging,
        ("convolution", "layer_norm"),
        {"norm": (nn.LayerNorm,), "reduction": (nn.Conv2d,)},
    ),
    ConvNeXtBlock: Conversion(fuse_convnext_block, ("depthwise",)),
    PEG: Conversion(fuse_peg, ("depthwise",), {"conv": (nn.Conv2d,)}),
    NormStep: Conversion(fuse_norm_step, ("layer_norm",), {"norm": (nn.LayerNorm,)}),
    ConvStem: Conversion(fuse_stem, ("bottleneck",)),
    ConvPatches: Conversion(
        fuse_conv_patches,
        ("bottleneck",),
        {"convs": (nn.ModuleList,), "norms": (nn.ModuleList,), "act": (nn.GELU,)},
    ),
    PooledConvTokenizer: Conversion(
        fuse_pooled_tokenizer, ("bottleneck",), {"convs": (nn.ModuleList,), "pool": (nn.Sequential,)}
    ),
    ColorTokens: Conversion(fuse_color_tokens),
    CrossLayer: Conversion(fuse_cross_layer, ("attention",), CROSS_SEATS),
    Stage: Conversion(fuse_stage),
}
"""`(module, dtype)` to a module with the same call, for modules of exactly this type."""


def conversions_for(preprocess: Preprocess) -> Conversions:
    """Return the conversions of a model whose images are normalised by `preprocess`."""
    known = CONVERSIONS[PatchEmbedding]
    return {**CONVERSIONS, PatchEmbedding: known._replace(make=partial(known.make, preprocess=preprocess))}
