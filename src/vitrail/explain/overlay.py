"""Heatmap overlays: the preprocessed image, coloured by the values of a heatmap."""

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import interpolate

from vitrail.preprocess import Preprocess

COLOURS = "inferno"
"""matplotlib's colormap for heat: dark to bright in steps that the eye sees as equal, also without colours."""


def seen(images: Tensor, preprocess: Preprocess, least: int = 160) -> list[Image.Image]:
    """Convert preprocessed images `(B, C, Y, X)` back to viewable images: the crop that the model gets.

    One channel is grey; of more than three the first three are shown. Small images grow by a whole factor to `least`
    pixels or more, so that heat over them is smooth.

    Example:
        >>> [image] = seen(torch.zeros(1, 1, 32, 48), Preprocess(size=32, mean=(0.5,), std=(0.5,)))
        >>> image.size, image.getpixel((0, 0))
        ((240, 160), (128, 128, 128))
    """
    channels = 3 if images.shape[1] >= 3 else 1
    mean = torch.tensor(preprocess.mean)[:channels, None, None]
    std = torch.tensor(preprocess.std)[:channels, None, None]
    light = (images[:, :channels].detach().cpu().float() * std + mean).clamp(0, 1)
    pixels = (light * 255).round().byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1)  # (B, C, Y, X) -> (B, Y, X, 3)
    factor = -(-least // min(pixels.shape[1:3]))
    pixels = pixels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    return [Image.fromarray(image.numpy()) for image in pixels]


EVEN = 0.5
"""Range of a heatmap, as a share of its mean, below which it is dimmed: stretched, its noise would be seen."""


def contrast(heat: Tensor) -> float:
    """Return the largest value over the mean: 1 for even heat, N for one of N cells.

    Example:
        >>> contrast(torch.tensor([[1.0, 1.0], [1.0, 5.0]]))
        2.5
    """
    heat = heat.detach().float()
    return float(heat.max() / heat.mean().clamp_min(1e-30))


def normalised(heat: Tensor, robust: float = 0.025) -> Tensor:
    """Scale values to 0..1; the share `robust` of them at each end is cut off, so that one outlier darkens nothing.

    Nearly even values, whose range is below `EVEN` times their mean, are not stretched to the whole scale.

    Example:
        >>> normalised(torch.tensor([[0.0, 2.0], [4.0, 1.0]]), robust=0.0).tolist()
        [[0.0, 0.5], [1.0, 0.25]]
    """
    heat = heat.float()
    low, high = torch.quantile(heat, robust), torch.quantile(heat, 1 - robust)
    if high <= low:  # almost all alike: let the few that differ be seen
        low, high = heat.min(), heat.max()
    least = EVEN * heat.clamp(low, high).mean().abs()
    return ((heat - low) / torch.maximum(high - low, least).clamp_min(1e-12)).clamp(0, 1)


def paint(values: Tensor, colours: str = COLOURS) -> Image.Image:
    """Colour `(H, W)` values in 0..1, one pixel each.

    Example:
        >>> paint(torch.zeros(2, 3)).size
        (3, 2)
    """
    return Image.fromarray(
        (matplotlib.colormaps[colours](values.detach().cpu().numpy())[..., :3] * 255).round().astype(np.uint8)
    )


def enlarge(heat: Tensor, size: tuple[int, int], cover: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Spread `(H, W)` cells smoothly over pixels, `(Y, X)`.

    Args:
        heat: one value a cell.
        size: rows and columns of the image.
        cover: height and width of the grid in images; the part over the edge is cut off.

    Example:
        >>> enlarge(torch.zeros(2, 3), (8, 12)).shape
        torch.Size([8, 12])
    """
    extent = [round(length * share) for length, share in zip(size, cover, strict=True)]
    smooth = interpolate(heat[None, None].float(), size=extent, mode="bicubic", antialias=True)[0, 0]
    return smooth[: size[0], : size[1]].clamp(heat.min(), heat.max())


def overlay(
    image: Image.Image,
    heat: Tensor,
    cover: tuple[float, float] = (1.0, 1.0),
    robust: float = 0.025,
    strength: float = 0.65,
) -> Image.Image:
    """Overlay a heatmap on an image: high values are bright and coloured, low values dim and grey.

    Args:
        image: the preprocessed image.
        heat: `(H, W)`, any scale.
        cover: height and width of the grid in images; more than 1 where the image was padded.
        robust: share of the values to cut off at each end, see `normalised`.
        strength: share of the heat's colour where it is highest.

    Example:
        >>> overlay(Image.new("RGB", (12, 8)), torch.rand(2, 3)).size
        (12, 8)
    """
    hot = enlarge(normalised(heat.detach().cpu(), robust), (image.height, image.width), cover)
    colour = np.asarray(paint(hot), dtype=np.float32)
    warmth = hot.numpy()[..., None]
    grey = np.asarray(image.convert("L").convert("RGB"), dtype=np.float32)
    full = np.asarray(image.convert("RGB"), dtype=np.float32)
    base = grey + (full - grey) * warmth
    share = 0.25 + (strength - 0.25) * warmth
    return Image.fromarray((base * (1 - share) + colour * share).round().clip(0, 255).astype(np.uint8))


def mark(image: Image.Image, y: float, x: float) -> Image.Image:
    """Put a ring on a place, given as shares of height and width.

    Example:
        >>> mark(Image.new("RGB", (64, 48)), y=0.5, x=0.25).size
        (64, 48)
    """
    marked, radius = image.copy(), max(6, min(image.size) // 16)
    draw = ImageDraw.Draw(marked)
    centre = (x * image.width, y * image.height)
    draw.circle(centre, radius + 1, outline=(0, 0, 0), width=3)
    draw.circle(centre, radius, outline=(255, 255, 255), width=1)
    return marked
