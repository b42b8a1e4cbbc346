"""TNT: a Transformer on the words of each patch, within a Transformer on the patches.

"Transformer in Transformer", Han et al., 2021, table 1:

| model | layers | inner c | inner heads | outer C | outer heads |
|---|---|---|---|---|---|
| S | 12 | 24 | 4 | 384 | 6 |
| B | 12 | 40 | 4 | 640 | 10 |

A patch of 16 x 16 pixels has 4 x 4 words. Details that are easy to get wrong: queries, keys and values have no bias;
the image is cut before the convolution, so no word sees the neighbours of its patch; inputs are scaled to -1..1.
`legacy` is timm's first port (`words="shared"`): it convolves before it cuts, and normalises each word alone.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.errors import unknown
from vitrail.grid import Grid
from vitrail.parts.backbone import Backbone, Classifier, Features
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import PrefixTokens
from vitrail.parts.heads import FirstToken, LinearHead
from vitrail.parts.initialisation import initialise
from vitrail.parts.positions import LearnedPosition
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.visual_words import (
    InnerOuterBlock,
    SentenceEmbedding,
    SentenceProjection,
    SharedWordEmbedding,
    WordEmbedding,
    WordNormProjection,
)
from vitrail.preprocess import HALF_MEAN, HALF_STD, Preprocess
from vitrail.shapes import Image

AT_224 = Preprocess(mean=HALF_MEAN, std=HALF_STD)
WORDS = {"patch": (WordEmbedding, SentenceProjection), "shared": (SharedWordEmbedding, WordNormProjection)}


@dataclass(frozen=True)
class TNTConfig:
    """The numbers of a TNT; `words` is `patch` (each patch convolved alone) or `shared` (timm's legacy)."""

    dim: int
    num_heads: int
    inner_dim: int
    inner_heads: int = 4
    depth: int = 12
    patch_size: int = 16
    mlp_ratio: float = 4.0
    words: str = "patch"
    drop_path: float = 0.1
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


class TNTBackbone(Backbone):
    """Backbone of two streams; its features are the patch tokens."""

    def forward(self, images: Image) -> Features:
        """Embed, run the blocks on words and patches, normalise the patch tokens."""
        words, x, grid = self.embedding(images)
        for block in self.stages[0].blocks:  # pyright: ignore[reportGeneralTypeIssues, reportArgumentType]
            words, x = block(words, x, grid)
        return Features(self.norm(x), grid, (grid.cells(x),))


def build(config: TNTConfig) -> Classifier:
    """Assemble a TNT from its numbers.

    Raises:
        VitrailError: if `words` is neither `patch` nor `shared`.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["tnt_s_legacy_patch16_224"])
        >>> sum(value.numel() for value in model.parameters())
        23755336
    """
    c = config
    if c.words not in WORDS:
        raise unknown("words", c.words, WORDS)
    embed, project = WORDS[c.words]
    side = -(-c.preprocess.size // c.patch_size)
    patches = embed(c.in_channels, c.inner_dim, c.patch_size)
    words = patches.side**2
    embedding = SentenceEmbedding(
        patches,
        SentenceProjection(words, c.inner_dim, c.dim, bias=True),
        [PrefixTokens(c.dim), LearnedPosition(c.dim, Grid(side, side, prefix=1))],
    )
    blocks = [
        InnerOuterBlock(
            build_block(c.inner_dim, c.inner_heads, 4.0, rate),
            project(words, c.inner_dim, c.dim),
            build_block(c.dim, c.num_heads, c.mlp_ratio, rate),
        )
        for rate in drop_path_rates(c.drop_path, c.depth)
    ]
    model = Classifier(
        TNTBackbone(embedding, [Stage(blocks)], nn.LayerNorm(c.dim)), LinearHead(FirstToken(), c.dim, c.num_classes)
    )
    initialise(model)
    return model


def build_block(dim: int, num_heads: int, mlp_ratio: float, rate: float) -> Block:
    """Assemble an inner or an outer block."""
    return Block(
        norm1=nn.LayerNorm(dim),
        token_mixer=SelfAttention(dim, num_heads, qkv_bias=False),
        norm2=nn.LayerNorm(dim),
        channel_mixer=MLP(dim, int(dim * mlp_ratio)),
        drop_path=rate,
    )


SMALL = TNTConfig(dim=384, num_heads=6, inner_dim=24)

VARIANTS = {
    "tnt_s_legacy_patch16_224": replace(SMALL, words="shared"),
    "tnt_s_patch16_224": SMALL,
    "tnt_b_patch16_224": TNTConfig(dim=640, num_heads=10, inner_dim=40),
}
