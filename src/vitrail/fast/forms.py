"""Which module has which fast form. To add one, add a line."""

from functools import partial

from torch import nn

from vitrail.fast.bottlenecks import fast_stage
from vitrail.fast.convolution import (
    fast_conv_merging,
    fast_normed_conv_merging,
    fast_overlapping_patches,
    fast_tokenizer,
)
from vitrail.fast.form import Form, Forms
from vitrail.fast.layers import fast_linear
from vitrail.fast.patches import fast_map_patches, fast_patch_embedding, fast_patch_merging
from vitrail.fast.stems import fast_stem
from vitrail.parts.embeddings import ConvStem, ConvTokenizer, MapPatches, OverlappingPatchEmbedding, PatchEmbedding
from vitrail.parts.merging import ConvMerging, NormedConvMerging, PatchMerging
from vitrail.parts.stages import Stage
from vitrail.preprocess import Preprocess

FORMS: Forms = {
    nn.Linear: Form(fast_linear),
    PatchEmbedding: Form(fast_patch_embedding, ("patches",)),
    MapPatches: Form(fast_map_patches, ("convolution",)),
    PatchMerging: Form(fast_patch_merging, ("patches",)),
    ConvTokenizer: Form(fast_tokenizer, ("convolution",)),
    OverlappingPatchEmbedding: Form(fast_overlapping_patches, ("convolution",)),
    ConvMerging: Form(fast_conv_merging, ("convolution",)),
    NormedConvMerging: Form(fast_normed_conv_merging, ("convolution",)),
    ConvStem: Form(fast_stem, ("bottleneck",)),
    Stage: Form(fast_stage),
}
"""For modules of exactly this type, `(module, dtype) -> module` with the same call, and the libraries it needs.

Blocks are not here: their branches are, in `branches.BRANCHES`.
"""

BETWEEN_BLOCKS = set(FORMS) - {nn.Linear, Stage}
"""Those of them that make tokens, `(images) -> (x, grid)`, or hand them on, `(x, grid) -> (x, grid)`, by themselves."""


def forms_for(preprocess: Preprocess) -> Forms:
    """Return the forms of a model whose pictures are normalised so."""
    patches = Form(partial(fast_patch_embedding, preprocess=preprocess), FORMS[PatchEmbedding].libraries)
    return {**FORMS, PatchEmbedding: patches}
