"""Swin V2: windows that may change their size, and activations that stay small.

"Swin Transformer V2: Scaling Up Capacity and Resolution", Liu et al., 2022, section 4.1, and the authors' code:

| model | C | layers | heads |
|---|---|---|---|
| T | 96 | 2, 2, 6, 2 | 3, 6, 12, 24 |
| S | 96 | 2, 2, 18, 2 | 3, 6, 12, 24 |
| B | 128 | 2, 2, 18, 2 | 4, 8, 16, 32 |
| L | 192 | 2, 2, 18, 2 | 6, 12, 24, 48 |

Three changes to Swin: cosine attention, a position bias computed from log-spaced offsets, and norms after the mixers.
The merging reduces first and normalises 2 C channels. Queries and values have a bias, keys have none.

Any height and width from 1 up. A window is as large as the map of its stage at `image_size`, if that is smaller: a
window of 16 at 256 pixels has 8 cells in the last stage. To move to larger windows, name the old ones:
`create_model("swinv2_tiny_window8_256", weights=..., window_size=16, image_size=512, pretrained_windows=(8, 8, 8, 8))`.
`edge` is as in Swin: `official` pads, then rolls (torchvision, Hugging Face); `timm` rolls, then pads.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.errors import VitrailError, unknown
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding
from vitrail.parts.heads import LinearHead, MeanToken
from vitrail.parts.initialisation import initialise
from vitrail.parts.merging import NoMerging, PostNormPatchMerging
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.res_post_norm_block import ResPostNormBlock
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.cosine_window_attention import CosineWindowAttention
from vitrail.parts.window_partition import MaskedPadding, PadThenRoll, RollThenPad
from vitrail.preprocess import Preprocess

EDGES = {"official": PadThenRoll, "timm": RollThenPad, "masked": MaskedPadding}

AT_256, AT_384 = Preprocess(256), Preprocess(384, crop=1.0)


@dataclass(frozen=True)
class SwinV2Config:
    """Hyperparameters of a Swin V2."""

    dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_size: int = 8
    pretrained_windows: tuple[int, ...] = ()
    patch_size: int = 4
    mlp_ratio: float = 4.0
    drop_path: float = 0.2
    edge: str = "official"
    num_classes: int = 1000
    in_channels: int = 3
    norm_eps: float = 1e-5
    preprocess: Preprocess = AT_256


def build(config: SwinV2Config) -> Classifier:
    """Assemble a Swin V2 from its config.

    Raises:
        VitrailError: if `edge` is unknown, or `pretrained_windows` has another length than `depths`.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["swinv2_tiny_window8_256"])
        >>> sum(value.numel() for value in model.parameters())
        28347154
    """
    c = config
    if c.edge not in EDGES:
        raise unknown("edge", c.edge, EDGES)
    if len(c.pretrained_windows) not in (0, len(c.depths)):
        raise VitrailError(
            f"pretrained_windows has {len(c.pretrained_windows)} values for {len(c.depths)} stages.\n"
            "Give one for each stage, or () for weights that were not trained with another window."
        )
    dims = [c.dim * 2**i for i in range(len(c.depths))]
    rates = iter(drop_path_rates(c.drop_path, sum(c.depths)))
    stages = []
    for i, (dim, depth) in enumerate(zip(dims, c.depths, strict=True)):
        blocks = [build_block(c, i, dim, shifted=j % 2 == 1, rate=next(rates)) for j in range(depth)]
        stages.append(Stage(blocks, entry=PostNormPatchMerging(dims[i - 1], dim) if i else NoMerging()))
    embedding = Embedding(PatchEmbedding(c.in_channels, c.dim, c.patch_size, norm=nn.LayerNorm(c.dim)))
    backbone = Backbone(embedding, stages, nn.LayerNorm(dims[-1], eps=c.norm_eps))
    model = Classifier(backbone, LinearHead(MeanToken(), dims[-1], c.num_classes))
    initialise(model)
    return model


def build_block(c: SwinV2Config, stage: int, dim: int, shifted: bool, rate: float) -> ResPostNormBlock:
    """Assemble one block of one stage."""
    window = min(c.window_size, -(-c.preprocess.size // (c.patch_size * 2**stage)))
    return ResPostNormBlock(
        norm1=nn.LayerNorm(dim, eps=c.norm_eps),
        token_mixer=CosineWindowAttention(
            dim,
            c.num_heads[stage],
            window,
            shift=window // 2 if shifted else 0,
            pretrained_window=c.pretrained_windows[stage] if c.pretrained_windows else 0,
            cut=EDGES[c.edge],
        ),
        norm2=nn.LayerNorm(dim, eps=c.norm_eps),
        channel_mixer=MLP(dim, int(dim * c.mlp_ratio)),
        drop_path=rate,
    )


TINY = SwinV2Config(dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24))
SMALL = SwinV2Config(dim=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24), drop_path=0.3)
BASE = SwinV2Config(dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), drop_path=0.5)
LARGE = SwinV2Config(dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48))
FROM_192 = (12, 12, 12, 6)

VARIANTS = {
    "swinv2_tiny_window8_256": TINY,
    "swinv2_tiny_window16_256": replace(TINY, window_size=16),
    "swinv2_small_window8_256": SMALL,
    "swinv2_small_window16_256": replace(SMALL, window_size=16),
    "swinv2_base_window8_256": BASE,
    "swinv2_base_window16_256": replace(BASE, window_size=16),
    "swinv2_base_window12to16_192to256": replace(BASE, window_size=16, pretrained_windows=FROM_192, drop_path=0.2),
    "swinv2_base_window12to24_192to384": replace(
        BASE, window_size=24, pretrained_windows=FROM_192, drop_path=0.2, preprocess=AT_384
    ),
    "swinv2_large_window12to16_192to256": replace(LARGE, window_size=16, pretrained_windows=FROM_192),
    "swinv2_large_window12to24_192to384": replace(
        LARGE, window_size=24, pretrained_windows=FROM_192, preprocess=AT_384
    ),
}
