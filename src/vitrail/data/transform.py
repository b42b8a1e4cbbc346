"""From a picture to the tensor that a model takes: for evaluation, and for training.

Both work in two steps. `picture` brings one decoded picture to the model's size as uint8, `batch` does the rest to
many at once. Pictures that have the model's size already (CIFAR, digits) skip the first step, see `leaves`.
"""

from collections.abc import Callable
from math import exp, log, sqrt

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitrail.data.augment import Augment, erase, flip, jitter, pad_crop
from vitrail.data.draw import Draws
from vitrail.data.policy import rand_augment, trivial_augment
from vitrail.errors import VitrailError
from vitrail.preprocess import Preprocess

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


Fit = Callable[[Image.Image, tuple[int, int], int, str], Tensor]
"""`(image, (width, height), side, interpolation)`: resize, cut a square from the centre; `(C, side, side)` of uint8."""


def normalize(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Scale `(B, C, Y, X)` of uint8 to 0..1, subtract the mean, divide by the deviation."""
    if pixels.shape[1] == 1 and preprocess.channels == 3:
        pixels = pixels.expand(-1, 3, -1, -1)
    mean = torch.tensor(preprocess.mean, device=pixels.device)[:, None, None]
    std = torch.tensor(preprocess.std, device=pixels.device)[:, None, None]
    images = torch.empty(pixels.shape, device=pixels.device)
    step = 1 if pixels.device.type == "cpu" else max(1, len(pixels))  # on a CPU each of the four steps finds it cached
    for first in range(0, len(pixels), step):
        part = slice(first, first + step)
        images[part].copy_(pixels[part]).div_(255).sub_(mean).div_(std)
    return images


def fit(image: Image.Image, size: tuple[int, int], side: int, interpolation: str) -> Tensor:
    """Resize, and crop a square from the centre; `(C, side, side)` of uint8."""
    if image.size != size:
        image = image.resize(size, _FILTERS[interpolation])
    left, top = centre(size, side)
    return _planes(image.crop((left, top, left + side, top + side)))


def centre(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the left and upper edge of a square in the middle of a picture; negative where it reaches beyond."""
    return round((size[0] - side) / 2), round((size[1] - side) / 2)


class EvalTransform:
    """Carry out a `Preprocess`: the same picture gives the same tensor, always.

    Equal to `timm.data.create_transform(..., crop_mode="center")` on the same pixels, bit for bit.

    Args:
        preprocess: the evaluation protocol of a model.
        fit: what resizes and crops; every one gives the same pixels.

    Example:
        >>> EvalTransform(Preprocess(size=32))(Image.new("RGB", (50, 40))).shape
        torch.Size([3, 32, 32])
    """

    draft: int | None = None

    def __init__(self, preprocess: Preprocess, fit: Fit = fit) -> None:
        if preprocess.channels not in (1, 3) or preprocess.interpolation not in _FILTERS:
            raise VitrailError(
                f"Pictures of {preprocess.channels} channels with {preprocess.interpolation!r} interpolation.\n"
                f"A picture has 1 or 3 channels; the interpolations are {', '.join(_FILTERS)}."
            )
        self.preprocess, self.fit = preprocess, fit
        self.mode = "L" if preprocess.channels == 1 else "RGB"

    def __call__(self, image: Image.Image) -> Tensor:
        """Return `(C, size, size)`, normalised."""
        if image.mode != self.mode:
            image = image.convert(self.mode)
        return self.batch(self.picture(image)[None])[0]

    def leaves(self, channels: int, height: int, width: int) -> bool:
        """Tell whether `picture` would leave pictures of this shape as they are."""
        size = self.preprocess.size
        fits = channels in (1, self.preprocess.channels)
        return fits and height == width == size == self.preprocess.resize

    def picture(self, image: Image.Image, draws: Draws | None = None) -> Tensor:
        """Resize the short side, and crop from the centre; `(C, size, size)` of uint8."""
        short, (width, height) = self.preprocess.resize, image.size
        wide = short if width <= height else int(short * width / height)
        tall = short if height <= width else int(short * height / width)
        return self.fit(image, (wide, tall), self.preprocess.size, self.preprocess.interpolation)

    def batch(self, pixels: Tensor, draws: Draws | None = None) -> Tensor:
        """Normalise `(B, C, size, size)`."""
        return normalize(pixels, self.preprocess)


class TrainTransform:
    """Vary training pictures; each picture's changes are a function of its draws alone.

    Args:
        preprocess: size, interpolation and statistics of the model.
        augment: what may be varied.
    """

    def __init__(self, preprocess: Preprocess, augment: Augment) -> None:
        self.preprocess, self.augment = preprocess, augment
        # The picture whole, for the crops that do not choose a part of it.
        whole = Preprocess(preprocess.size, 1.0, preprocess.interpolation, preprocess.mean, preprocess.std)
        self._still = EvalTransform(preprocess if augment.crop == "center" else whole)
        self.mode = self._still.mode
        # Of a large JPEG no more is decoded than the least crop needs.
        self.draft = int(preprocess.size / sqrt(augment.scale[0])) if augment.crop == "resized" else None

    def leaves(self, channels: int, height: int, width: int) -> bool:
        """Tell whether `picture` would leave pictures of this shape as they are."""
        return self.augment.crop != "resized" and self._still.leaves(channels, height, width)

    def picture(self, image: Image.Image, draws: Draws | None = None) -> Tensor:
        """Bring a picture to the model's size; `draws` are those of this picture (needed for a `resized` crop)."""
        if self.augment.crop != "resized":
            return self._still.picture(image)
        assert draws is not None and len(draws) == 1
        left, top, right, bottom = random_box(image.size, draws, self.augment.scale, self.augment.ratio)
        size, method = self.preprocess.size, _FILTERS[self.preprocess.interpolation]
        return _planes(image.crop((left, top, right, bottom)).resize((size, size), method))

    def batch(self, pixels: Tensor, draws: Draws) -> Tensor:
        """Vary and normalise `(B, C, size, size)`."""
        augment = self.augment
        if augment.crop == "pad" and augment.padding:
            padding = max(1, round(augment.padding * self.preprocess.size))
            pixels = pad_crop(pixels, draws, padding, augment.border)
        if augment.flip:
            pixels = flip(pixels, draws, augment.flip)
        if augment.policy == "rand":
            pixels = rand_augment(pixels, draws, augment.operations, augment.magnitude)
        elif augment.policy == "trivial":
            pixels = trivial_augment(pixels, draws)
        if augment.jitter:
            pixels = jitter(pixels, draws, augment.jitter)
        images = normalize(pixels, self.preprocess)
        return erase(images, draws, augment.erase, augment.erase_fill) if augment.erase else images


Transform = EvalTransform | TrainTransform


def random_box(
    size: tuple[int, int], draws: Draws, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Draw the box of a random resized crop: left, top, right, bottom.

    Paper: Szegedy et al., "Going deeper with convolutions" (2015), section 6. Ten tries, then the largest box in the
    middle whose shape is allowed, as in torchvision.
    """
    width, height = size
    areas = draws.uniform("box area", *scale, count=10)[0] * (width * height)
    shapes = draws.uniform("box shape", log(ratio[0]), log(ratio[1]), count=10)[0]
    for area, shape in zip(areas.tolist(), shapes.tolist(), strict=True):
        wide, tall = round(sqrt(area * exp(shape))), round(sqrt(area / exp(shape)))
        if 0 < wide <= width and 0 < tall <= height:
            left = int(draws.uniform("box left")[0] * (width - wide + 1))
            top = int(draws.uniform("box top")[0] * (height - tall + 1))
            return left, top, left + wide, top + tall
    wide = min(width, max(1, round(height * ratio[1])))
    tall = min(height, max(1, round(width / ratio[0])))
    left, top = (width - wide) // 2, (height - tall) // 2
    return left, top, left + wide, top + tall


def _planes(image: Image.Image) -> Tensor:
    values = np.array(image).reshape(image.height, image.width, -1)
    return torch.from_numpy(values).permute(2, 0, 1)  # (Y, X, C) -> (C, Y, X)
