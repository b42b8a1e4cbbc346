"""SwinIR: image restoration by residual groups of Swin blocks, one token a pixel.

"SwinIR: Image Restoration Using Swin Transformer", Liang et al., 2021, sections 3 and 4.1, and the authors' code:

| task | groups x blocks | C | heads | window | upsampler |
|---|---|---|---|---|---|
| classical super-resolution | 6 x 6 | 180 | 6 | 8 | pixelshuffle |
| lightweight super-resolution | 4 x 6 | 60 | 6 | 8 | pixelshuffledirect |
| real-world super-resolution, M | 6 x 6 | 180 | 6 | 8 | nearest+conv |
| real-world super-resolution, L | 9 x 6 | 240 | 8 | 8 | nearest+conv |
| denoising | 6 x 6 | 180 | 6 | 8 | none |
| JPEG artifacts | 6 x 6 | 180 | 6 | 7 | none |

Pixels are in [0, 1]. Details that are easy to get wrong: MLPs have twice the channels, not four times; the JPEG models
compute on 0..255 (`pixel_range`) with windows of 7; the RGB mean is subtracted only from colour images; windows are
shifted even if one window covers the map. Denoisers and JPEG models exist for one noise level each, with equal numbers.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.errors import VitrailError, unknown
from vitrail.parts.backbone import Backbone
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.initialisation import initialise
from vitrail.parts.reconstruction import image_mean, reconstruction_head
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.residual_stage import ResidualStage, bottleneck_conv, single_conv
from vitrail.parts.restorer import MapTokens, Restorer
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.parts.window_partition import AlwaysShifted

CONVOLUTIONS = {"1conv": single_conv, "3conv": bottleneck_conv}


@dataclass(frozen=True)
class SwinIRConfig:
    """Hyperparameters of a SwinIR."""

    depths: tuple[int, ...] = (6,) * 6
    dim: int = 180
    num_heads: int = 6
    window_size: int = 8
    mlp_ratio: float = 2.0
    drop_path: float = 0.1
    scale: int = 1
    upsampler: str = "none"
    convolution: str = "1conv"
    in_channels: int = 3
    pixel_range: float = 1.0


def build(config: SwinIRConfig) -> Restorer:
    """Assemble a SwinIR from its config.

    Raises:
        VitrailError: if `upsampler` or `convolution` is unknown, the scale does not fit, or windows are too small.
    """
    c = config
    if c.convolution not in CONVOLUTIONS:
        raise unknown("convolution", c.convolution, CONVOLUTIONS)
    if c.window_size < 2:
        raise VitrailError(f"window_size needs a number from 2 up, got {c.window_size}: windows of 1 cannot shift.")
    convolve, rates = CONVOLUTIONS[c.convolution], iter(drop_path_rates(c.drop_path, sum(c.depths)))
    stages = [
        ResidualStage([_block(c, shifted=i % 2 == 1, rate=next(rates)) for i in range(depth)], convolve(c.dim))
        for depth in c.depths
    ]
    model = Restorer(
        shallow=nn.Conv2d(c.in_channels, c.dim, 3, padding=1),
        backbone=Backbone(MapTokens(c.dim), stages, nn.LayerNorm(c.dim)),
        fuse=convolve(c.dim),
        head=reconstruction_head(c.upsampler, c.dim, c.in_channels, c.scale),
        scale=c.scale,
        multiple=c.window_size,
        mean=image_mean(c.in_channels),
        pixel_range=c.pixel_range,
    )
    initialise(model)
    return model


def _block(c: SwinIRConfig, shifted: bool, rate: float) -> Block:
    """Assemble one Swin block."""
    shift = c.window_size // 2 if shifted else 0
    return Block(
        norm1=nn.LayerNorm(c.dim),
        token_mixer=WindowAttention(c.dim, c.num_heads, c.window_size, shift, cut=AlwaysShifted),
        norm2=nn.LayerNorm(c.dim),
        channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
        drop_path=rate,
    )


CLASSICAL = SwinIRConfig(scale=2, upsampler="pixelshuffle")
LIGHT = SwinIRConfig(depths=(6,) * 4, dim=60, scale=2, upsampler="pixelshuffledirect")
REAL_M = SwinIRConfig(scale=4, upsampler="nearest+conv")
REAL_L = replace(REAL_M, depths=(6,) * 9, dim=240, num_heads=8, convolution="3conv")
DENOISE = SwinIRConfig()
JPEG = SwinIRConfig(window_size=7, pixel_range=255.0)

VARIANTS = {
    "swinir_classical_x2": CLASSICAL,
    "swinir_classical_x3": replace(CLASSICAL, scale=3),
    "swinir_classical_x4": replace(CLASSICAL, scale=4),
    "swinir_classical_x8": replace(CLASSICAL, scale=8),
    "swinir_light_x2": LIGHT,
    "swinir_light_x3": replace(LIGHT, scale=3),
    "swinir_light_x4": replace(LIGHT, scale=4),
    "swinir_real_m_x4": REAL_M,
    "swinir_real_l_x4": REAL_L,
    "swinir_gray_denoise": replace(DENOISE, in_channels=1),
    "swinir_color_denoise": DENOISE,
    "swinir_gray_jpeg": replace(JPEG, in_channels=1),
    "swinir_color_jpeg": JPEG,
}
