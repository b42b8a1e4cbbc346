"""Heat over a picture: what the model saw, coloured by how much each place matters."""

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from vitrail.preprocess import Preprocess

COLOURS = "inferno"
"""matplotlib's colormap for heat: dark to bright in steps that the eye sees as equal, also without colours."""


def seen(images: Tensor, preprocess: Preprocess) -> list[Image.Image]:
    """Turn prepared pictures `(B, C, Y, X)` back into what an eye can look at: the crop that the model saw.

    One channel is grey; of more than three the first three are shown.

    Example:
        >>> [picture] = seen(torch.zeros(1, 1, 4, 6), Preprocess(size=4, mean=(0.5,), std=(0.5,)))
        >>> picture.size, picture.getpixel((0, 0))
        ((6, 4), (128, 128, 128))
    """
    channels = 3 if images.shape[1] >= 3 else 1
    mean = torch.tensor(preprocess.mean)[:channels, None, None]
    std = torch.tensor(preprocess.std)[:channels, None, None]
    light = (images[:, :channels].detach().cpu().float() * std + mean).clamp(0, 1)
    pixels = (light * 255).round().byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1)  # (B, C, Y, X) -> (B, Y, X, 3)
    return [Image.fromarray(picture.numpy()) for picture in pixels]


def normalised(heat: Tensor, robust: float = 0.01) -> Tensor:
    """Scale values to 0..1; the share `robust` of them at each end is cut off, so that one outlier darkens nothing."""
    heat = heat.float()
    low, high = torch.quantile(heat, robust), torch.quantile(heat, 1 - robust)
    if high <= low:  # almost all alike: let the few that differ be seen
        low, high = heat.min(), heat.max()
    return ((heat - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)


def paint(values: Tensor, colours: str = COLOURS) -> Image.Image:
    """Colour `(H, W)` values in 0..1, one pixel each."""
    return Image.fromarray((matplotlib.colormaps[colours](values.cpu().numpy())[..., :3] * 255).round().astype(np.uint8))


def enlarge(heat: Tensor, size: tuple[int, int], extent: tuple[int, int] | None = None) -> Tensor:
    """Spread `(H, W)` cells smoothly over pixels, `(Y, X)`.

    Args:
        heat: one value a cell.
        size: rows and columns of the picture.
        extent: rows and columns that the cells cover, where they reach over the picture's edge.
    """
    extent = extent or size
    smooth = interpolate(heat[None, None].float(), size=extent, mode="bicubic", antialias=True)[0, 0]
    return smooth[: size[0], : size[1]].clamp(heat.min(), heat.max())


def overlay(picture: Image.Image, heat: Tensor, extent: tuple[int, int] | None = None, strength: float = 0.65) -> Image.Image:
    """Lay heat over a picture: hot places are coloured and bright, the rest is dim and almost grey.

    Args:
        picture: what the model saw.
        heat: `(H, W)`, any scale.
        extent: rows and columns of pixels that the cells cover; by default the picture's.
        strength: share of colour where the heat is highest.
    """
    hot = normalised(enlarge(normalised(heat), (picture.height, picture.width), extent), robust=0.0)
    colour = np.asarray(paint(hot), dtype=np.float32)
    share = (0.25 + (strength - 0.25) * hot.numpy())[..., None]
    grey = np.asarray(picture.convert("L").convert("RGB"), dtype=np.float32)
    full = np.asarray(picture.convert("RGB"), dtype=np.float32)
    base = grey + (full - grey) * hot.numpy()[..., None]
    return Image.fromarray((base * (1 - share) + colour * share).round().clip(0, 255).astype(np.uint8))
