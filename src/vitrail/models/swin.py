"""Swin: attention within windows that shift.

"Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", Liu et al., 2021, section 3.3:

| model | C | layers | heads |
|---|---|---|---|
| T | 96 | 2, 2, 6, 2 | 3, 6, 12, 24 |
| S | 96 | 2, 2, 18, 2 | 3, 6, 12, 24 |
| B | 128 | 2, 2, 18, 2 | 4, 8, 16, 32 |
| L | 192 | 2, 2, 18, 2 | 6, 12, 24, 48 |

Any height and width from 1 up. Where a map is no multiple of the window, three conventions exist, and they agree on
multiples that are larger than a window; `edge` names one, or the fourth, which differs on maps that one window covers:

- `official` is torchvision's (at multiples of the patch; it drops the rest of the image, we pad).
- `timm` is timm's, unless a map is shorter than a window: timm then resizes the table of biases, we read a part of it.
- `masked`: padding is seen by nobody.
- `shifted` is `official`, but an axis that one window covers is shifted too: the authors' segmentation and detection
  code, mmsegmentation, and the Swin inside Hugging Face's UperNet.

With the others an axis that one window covers is not shifted, the other one is, in torchvision and timm too. Hugging
Face's classifier shifts neither then, as the authors' classification code, so it differs there (a map of 7 x 14 cells,
as in the last stage at 224 x 448) and equals `official` elsewhere; maps shorter than a window it does not take.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.errors import unknown
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding
from vitrail.parts.heads import LinearHead, MeanToken
from vitrail.parts.initialisation import initialise
from vitrail.parts.merging import NoMerging, PatchMerging
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.parts.window_partition import AlwaysShifted, MaskedPadding, PadThenRoll, RollThenPad
from vitrail.preprocess import Preprocess

EDGES = {"official": PadThenRoll, "timm": RollThenPad, "masked": MaskedPadding, "shifted": AlwaysShifted}

AT_224, AT_384 = Preprocess(), Preprocess(384, crop=1.0)


@dataclass(frozen=True)
class SwinConfig:
    """The numbers of a Swin."""

    dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_size: int = 7
    patch_size: int = 4
    mlp_ratio: float = 4.0
    drop_path: float = 0.1
    edge: str = "official"
    num_classes: int = 1000
    in_channels: int = 3
    norm_eps: float = 1e-5
    preprocess: Preprocess = AT_224


def build(config: SwinConfig) -> Classifier:
    """Assemble a Swin from its numbers.

    Raises:
        VitrailError: if `edge` is none of `official`, `timm`, `masked`, `shifted`.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["swin_tiny_patch4_window7_224"])
        >>> sum(value.numel() for value in model.parameters())
        28288354
    """
    c = config
    if c.edge not in EDGES:
        raise unknown("edge", c.edge, EDGES)
    dims = [c.dim * 2**i for i in range(len(c.depths))]
    rates = iter(drop_path_rates(c.drop_path, sum(c.depths)))
    stages = []
    for i, (dim, depth, num_heads) in enumerate(zip(dims, c.depths, c.num_heads, strict=True)):
        blocks = [
            build_block(c, dim, num_heads, shift=j % 2 * (c.window_size // 2), rate=next(rates)) for j in range(depth)
        ]
        stages.append(Stage(blocks, entry=PatchMerging(dims[i - 1], dim) if i else NoMerging()))
    embedding = Embedding(PatchEmbedding(c.in_channels, c.dim, c.patch_size, norm=nn.LayerNorm(c.dim)))
    backbone = Backbone(embedding, stages, nn.LayerNorm(dims[-1], eps=c.norm_eps))
    model = Classifier(backbone, LinearHead(MeanToken(), dims[-1], c.num_classes))
    initialise(model)
    return model


def build_block(c: SwinConfig, dim: int, num_heads: int, shift: int, rate: float) -> Block:
    """Assemble one block of one stage."""
    return Block(
        norm1=nn.LayerNorm(dim, eps=c.norm_eps),
        token_mixer=WindowAttention(dim, num_heads, c.window_size, shift, cut=EDGES[c.edge]),
        norm2=nn.LayerNorm(dim, eps=c.norm_eps),
        channel_mixer=MLP(dim, int(dim * c.mlp_ratio)),
        drop_path=rate,
    )


TINY = SwinConfig(dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), drop_path=0.2)
SMALL = SwinConfig(dim=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24), drop_path=0.3)
BASE = SwinConfig(dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), drop_path=0.5)
LARGE = SwinConfig(dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48), drop_path=0.2)

VARIANTS = {
    "swin_tiny_patch4_window7_224": TINY,
    "swin_small_patch4_window7_224": SMALL,
    "swin_base_patch4_window7_224": BASE,
    "swin_base_patch4_window12_384": replace(BASE, window_size=12, preprocess=AT_384),
    "swin_large_patch4_window7_224": LARGE,
    "swin_large_patch4_window12_384": replace(LARGE, window_size=12, preprocess=AT_384),
}
