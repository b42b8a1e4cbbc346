"""Which module has which fast form. To add one, add a line."""

from functools import partial

from torch import nn

from vitrail.fused.bottlenecks import fuse_stage
from vitrail.fused.conversion import Conversion, Conversions
from vitrail.fused.convolution import (
    fuse_conv_merging,
    fuse_normed_conv_merging,
    fuse_overlapping_patches,
    fuse_tokenizer,
)
from vitrail.fused.linear import fuse_linear
from vitrail.fused.patches import fuse_map_patches, fuse_patch_embedding, fuse_patch_merging
from vitrail.fused.stems import fuse_stem
from vitrail.parts.embeddings import ConvStem, ConvTokenizer, MapPatches, OverlappingPatchEmbedding, PatchEmbedding
from vitrail.parts.merging import ConvMerging, NormedConvMerging, PatchMerging
from vitrail.parts.stages import Stage
from vitrail.preprocess import Preprocess

CONVERSIONS: Conversions = {
    nn.Linear: Conversion(fuse_linear),
    PatchEmbedding: Conversion(fuse_patch_embedding, ("patches",)),
    MapPatches: Conversion(fuse_map_patches, ("convolution",)),
    PatchMerging: Conversion(fuse_patch_merging, ("patches",)),
    ConvTokenizer: Conversion(fuse_tokenizer, ("convolution",)),
    OverlappingPatchEmbedding: Conversion(fuse_overlapping_patches, ("convolution",)),
    ConvMerging: Conversion(fuse_conv_merging, ("convolution",)),
    NormedConvMerging: Conversion(fuse_normed_conv_merging, ("convolution",)),
    ConvStem: Conversion(fuse_stem, ("bottleneck",)),
    Stage: Conversion(fuse_stage),
}
"""For modules of exactly this type, `(module, dtype) -> module` with the same call, and the libraries it needs.

Blocks are not here: their branches are, in `branches.BRANCHES`.
"""

TOKEN_LAYERS = set(CONVERSIONS) - {nn.Linear, Stage}
"""Those of them that make tokens, `(images) -> (x, grid)`, or hand them on, `(x, grid) -> (x, grid)`, by themselves."""


def conversions_for(preprocess: Preprocess) -> Conversions:
    """Return the forms of a model whose pictures are normalised so."""
    patches = Conversion(partial(fuse_patch_embedding, preprocess=preprocess), CONVERSIONS[PatchEmbedding].libraries)
    return {**CONVERSIONS, PatchEmbedding: patches}
