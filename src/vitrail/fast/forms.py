"""Which module has which fast form. To add one, add a line."""

from collections.abc import Callable

from torch import nn

from vitrail.fast.bottlenecks import fast_stage
from vitrail.fast.convolution import (
    fast_conv_merging,
    fast_normed_conv_merging,
    fast_overlapping_patches,
    fast_tokenizer,
)
from vitrail.fast.layers import fast_linear
from vitrail.fast.patches import fast_map_patches, fast_patch_embedding, fast_patch_merging
from vitrail.fast.stems import fast_stem
from vitrail.parts.embeddings import ConvStem, ConvTokenizer, MapPatches, OverlappingPatchEmbedding, PatchEmbedding
from vitrail.parts.merging import ConvMerging, NormedConvMerging, PatchMerging
from vitrail.parts.stages import Stage

FORMS: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.Linear: fast_linear,
    PatchEmbedding: fast_patch_embedding,
    MapPatches: fast_map_patches,
    PatchMerging: fast_patch_merging,
    ConvTokenizer: fast_tokenizer,
    OverlappingPatchEmbedding: fast_overlapping_patches,
    ConvMerging: fast_conv_merging,
    NormedConvMerging: fast_normed_conv_merging,
    ConvStem: fast_stem,
    Stage: fast_stage,
}
"""For modules of exactly this type, `(module, dtype) -> module` with the same call; raises `Kept` where it cannot.

Blocks are not here: their branches are, in `branches.BRANCHES`.
"""
