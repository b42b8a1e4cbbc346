"""Swin2SR: SwinIR with the blocks of Swin V2.

"Swin2SR: SwinV2 Transformer for Compressed Image Super-Resolution and Restoration", Conde et al., 2022, section 3:

| task | groups x blocks | C | heads | window | upsampler |
|---|---|---|---|---|---|
| classical super-resolution x2, x4 | 6 x 6 | 180 | 6 | 8 | pixelshuffle |
| lightweight super-resolution x2 | 4 x 6 | 60 | 6 | 8 | pixelshuffledirect |
| real-world super-resolution x4 | 6 x 6 | 180 | 6 | 8 | nearest+conv |

Attention is Swin V2's (cosine, log-spaced position bias, norms after the branches). Unlike in SwinIR, the embedding and
each group project their cells once more, linearly, and the convolution after the last group is always a single one.
The compressed-input model with its auxiliary output (`pixelshuffle_aux`) is not built.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.errors import VitrailError
from vitrail.parts.backbone import Backbone
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.initialisation import initialise
from vitrail.parts.reconstruction import image_mean, reconstruction_head
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.res_post_norm_block import ResPostNormBlock
from vitrail.parts.residual_stage import ResidualStage, single_conv
from vitrail.parts.restorer import ProjectedMapTokens, Restorer
from vitrail.parts.token_mixers.cosine_window_attention import CosineWindowAttention
from vitrail.parts.window_partition import AlwaysShifted


@dataclass(frozen=True)
class Swin2SRConfig:
    """Hyperparameters of a Swin2SR."""

    depths: tuple[int, ...] = (6,) * 6
    dim: int = 180
    num_heads: int = 6
    window_size: int = 8
    mlp_ratio: float = 2.0
    drop_path: float = 0.1
    scale: int = 2
    upsampler: str = "pixelshuffle"
    in_channels: int = 3
    pixel_range: float = 1.0


def build(config: Swin2SRConfig) -> Restorer:
    """Assemble a Swin2SR from its config.

    Raises:
        VitrailError: if `upsampler` is unknown, the scale does not fit it, or windows are too small.
    """
    c = config
    if c.window_size < 2:
        raise VitrailError(f"window_size needs a number from 2 up, got {c.window_size}: windows of 1 cannot shift.")
    rates = iter(drop_path_rates(c.drop_path, sum(c.depths)))
    stages = [
        ResidualStage(
            [_block(c, shifted=i % 2 == 1, rate=next(rates)) for i in range(depth)],
            nn.Sequential(single_conv(c.dim), nn.Conv2d(c.dim, c.dim, 1)),
        )
        for depth in c.depths
    ]
    model = Restorer(
        shallow=nn.Conv2d(c.in_channels, c.dim, 3, padding=1),
        backbone=Backbone(ProjectedMapTokens(c.dim), stages, nn.LayerNorm(c.dim)),
        fuse=single_conv(c.dim),
        head=reconstruction_head(c.upsampler, c.dim, c.in_channels, c.scale),
        scale=c.scale,
        multiple=c.window_size,
        mean=image_mean(c.in_channels),
        pixel_range=c.pixel_range,
    )
    initialise(model)
    return model


def _block(c: Swin2SRConfig, shifted: bool, rate: float) -> ResPostNormBlock:
    """Assemble one block of Swin V2."""
    shift = c.window_size // 2 if shifted else 0
    return ResPostNormBlock(
        norm1=nn.LayerNorm(c.dim),
        token_mixer=CosineWindowAttention(c.dim, c.num_heads, c.window_size, shift, cut=AlwaysShifted),
        norm2=nn.LayerNorm(c.dim),
        channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
        drop_path=rate,
    )


CLASSICAL = Swin2SRConfig()

VARIANTS = {
    "swin2sr_classical_x2": CLASSICAL,
    "swin2sr_classical_x4": replace(CLASSICAL, scale=4),
    "swin2sr_light_x2": Swin2SRConfig(depths=(6,) * 4, dim=60, upsampler="pixelshuffledirect"),
    "swin2sr_real_x4": replace(CLASSICAL, scale=4, upsampler="nearest+conv"),
}
