"""DINOv2: ViTs trained without labels, with layer scale, and register tokens for global information.

"DINOv2: Learning Robust Visual Features without Supervision", Oquab et al., 2024, table 17, and "Vision Transformers
Need Registers", Darcet et al., 2024 (`reg4`: 4 registers):

| model | layers | C | heads | channel mixer |
|---|---|---|---|---|
| S | 12 | 384 | 6 | MLP |
| B | 12 | 768 | 12 | MLP |
| L | 24 | 1024 | 16 | MLP |
| g | 40 | 1536 | 24 | SwiGLU, 2 x 4096 |

Patches are 14 x 14 pixels, of images of 518 pixels in the last phase of training. The released backbones have no head
for classes (`num_classes=0`). Details that are easy to get wrong: with registers, positions are added to patches alone
(the place of the class token is folded into the token), without them to the class token too; inputs are normalised as
ImageNet's; LayerNorm's epsilon is 1e-6.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.errors import unknown
from vitrail.grid import Grid
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP, GatedMLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding, PrefixTokens
from vitrail.parts.heads import FirstToken, LinearHead
from vitrail.parts.initialisation import initialise
from vitrail.parts.positions import LearnedPosition
from vitrail.parts.regularisation import LayerScale, drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.preprocess import Preprocess

CHANNEL_MIXERS = {"mlp": MLP, "swiglu": GatedMLP}
AT_518 = Preprocess(518, crop=1.0)


@dataclass(frozen=True)
class DINOv2Config:
    """The numbers of a DINOv2; `channel_mixer` is `mlp` or `swiglu`."""

    dim: int
    depth: int
    num_heads: int
    registers: int = 0
    channel_mixer: str = "mlp"
    mlp_ratio: float = 4.0
    layer_scale: float = 1e-5
    patch_size: int = 14
    drop_path: float = 0.0
    num_classes: int = 0
    in_channels: int = 3
    preprocess: Preprocess = AT_518


def build(config: DINOv2Config) -> Classifier:
    """Assemble a DINOv2 from its numbers.

    Raises:
        VitrailError: if `channel_mixer` is neither `mlp` nor `swiglu`.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["vit_small_patch14_dinov2"])
        >>> sum(value.numel() for value in model.parameters())
        22056192
    """
    c = config
    if c.channel_mixer not in CHANNEL_MIXERS:
        raise unknown("channel_mixer", c.channel_mixer, CHANNEL_MIXERS)
    blocks = [
        Block(
            norm1=nn.LayerNorm(c.dim, eps=1e-6),
            token_mixer=SelfAttention(c.dim, c.num_heads),
            norm2=nn.LayerNorm(c.dim, eps=1e-6),
            channel_mixer=CHANNEL_MIXERS[c.channel_mixer](c.dim, int(c.dim * c.mlp_ratio)),
            drop_path=rate,
            scale1=LayerScale(c.dim, c.layer_scale),
            scale2=LayerScale(c.dim, c.layer_scale),
        )
        for rate in drop_path_rates(c.drop_path, c.depth)
    ]
    embedding = Embedding(PatchEmbedding(c.in_channels, c.dim, c.patch_size), prefix_and_positions(c))
    backbone = Backbone(embedding, [Stage(blocks)], nn.LayerNorm(c.dim, eps=1e-6))
    model = Classifier(backbone, LinearHead(FirstToken(), c.dim, c.num_classes))
    initialise(model)
    return model


def prefix_and_positions(c: DINOv2Config) -> list[nn.Module]:
    """Assemble the steps after the patches: positions come before the prefix if there are registers."""
    side = -(-c.preprocess.size // c.patch_size)
    if c.registers:
        return [LearnedPosition(c.dim, Grid(side, side)), PrefixTokens(c.dim, 1 + c.registers)]
    return [PrefixTokens(c.dim), LearnedPosition(c.dim, Grid(side, side, prefix=1))]


SMALL = DINOv2Config(dim=384, depth=12, num_heads=6)
BASE = DINOv2Config(dim=768, depth=12, num_heads=12)
LARGE = DINOv2Config(dim=1024, depth=24, num_heads=16)
GIANT = DINOv2Config(dim=1536, depth=40, num_heads=24, channel_mixer="swiglu", mlp_ratio=2.66667)

VARIANTS = {
    "vit_small_patch14_dinov2": SMALL,
    "vit_base_patch14_dinov2": BASE,
    "vit_large_patch14_dinov2": LARGE,
    "vit_giant_patch14_dinov2": GIANT,
    "vit_small_patch14_reg4_dinov2": replace(SMALL, registers=4),
    "vit_base_patch14_reg4_dinov2": replace(BASE, registers=4),
    "vit_large_patch14_reg4_dinov2": replace(LARGE, registers=4),
    "vit_giant_patch14_reg4_dinov2": replace(GIANT, registers=4),
}
