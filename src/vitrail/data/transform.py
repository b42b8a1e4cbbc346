"""From an image to the tensor that a model takes: for evaluation, and for training.

Both work in three steps, and pixels stay uint8 up to the last. `to_pixels` brings one decoded image to the model's
size, `vary` changes a batch, and `finish` makes the model's numbers of it: loading processes take the first two and
hand on bytes, the last is taken where the model is. Images that have the model's size already (CIFAR, digits) skip
the first step, see `leaves`.
"""

from dataclasses import replace
from math import exp, log, sqrt

from PIL import Image
from torch import Tensor

from vitrail.data.augment import Augment, EraseBoxes, draw_holes, jitter
from vitrail.data.auto_augment import rand_augment, trivial_augment
from vitrail.data.bands import band_mode, bands_of
from vitrail.data.pixel_ops import FILTERS, PLAIN, Box, PixelOps
from vitrail.data.stateless_rng import BatchRng
from vitrail.errors import VitrailError
from vitrail.preprocess import Preprocess

Varied = tuple[Tensor, EraseBoxes | None]
"""Pixels of a batch `(B, C, Y, X)` of uint8, and the boxes to erase after normalisation."""


class EvalTransform:
    """Carry out a `Preprocess`: the same image gives the same tensor, always.

    Equal to `timm.data.create_transform(..., crop_mode="center")` on the same pixels, bit for bit.

    Args:
        preprocess: the evaluation protocol of a model.
        pixels: backend of the pixel operations; all give the same result.

    Example:
        >>> EvalTransform(Preprocess(size=32))(Image.new("RGB", (50, 40))).shape
        torch.Size([3, 32, 32])
    """

    draft: int | None = None

    def __init__(self, preprocess: Preprocess, pixels: PixelOps = PLAIN) -> None:
        if preprocess.channels < 1 or preprocess.interpolation not in FILTERS:
            raise VitrailError(
                f"Images of {preprocess.channels} channels with {preprocess.interpolation!r} interpolation.\n"
                f"An image has at least 1 channel; the interpolations are {', '.join(FILTERS)}."
            )
        self.preprocess, self.pixels = preprocess, pixels
        self.mode = band_mode(preprocess.channels)

    def __call__(self, image: Image.Image) -> Tensor:
        """Return `(C, size, size)`, normalised."""
        if image.mode != self.mode:
            image = image.convert(self.mode)
        return self.batch(self.to_pixels(image)[None])[0]

    def leaves(self, channels: int, height: int, width: int) -> bool:
        """Tell whether `to_pixels` would leave images of this shape as they are."""
        size = self.preprocess.size
        fits = channels in (1, self.preprocess.channels)
        return fits and height == width == size == self.preprocess.resize

    def to_pixels(self, image: Image.Image, draws: BatchRng | None = None) -> Tensor:
        """Resize, and crop from the centre; `(C, size, size)` of uint8."""
        short, side, (width, height) = self.preprocess.resize, self.preprocess.size, image.size
        squash = self.preprocess.crop_mode == "squash"
        wide = short if squash or width <= height else int(short * width / height)
        tall = short if squash or height <= width else int(short * height / width)
        corner = round((wide - side) / 2), round((tall - side) / 2)
        return self.pixels.resize(
            image, (0, 0, width, height), (wide, tall), corner, side, self.preprocess.interpolation
        )

    def vary(self, pixels: Tensor, draws: BatchRng | None = None) -> Varied:
        """Change nothing."""
        return pixels, None

    def finish(self, pixels: Tensor, holes: EraseBoxes | None = None) -> Tensor:
        """Normalise `(B, C, size, size)`."""
        return self.pixels.normalize(pixels, self.preprocess)

    def batch(self, pixels: Tensor, draws: BatchRng | None = None) -> Tensor:
        """Take the last two steps at once."""
        return self.finish(pixels)


class TrainTransform:
    """Vary training images; each image's changes are a function of its draws alone.

    Args:
        preprocess: size, interpolation and statistics of the model.
        augment: augmentation settings.
        pixels: backend of the pixel operations; all give the same result.
    """

    def __init__(self, preprocess: Preprocess, augment: Augment, pixels: PixelOps = PLAIN) -> None:
        self.preprocess, self.augment, self.pixels = preprocess, augment, pixels
        # The image whole, for the crops that do not choose a part of it.
        whole = replace(preprocess, crop=1.0)
        self._still = EvalTransform(preprocess if augment.crop == "center" else whole, pixels)
        self.mode = self._still.mode
        if bands_of(self.mode) and (augment.policy != "none" or augment.jitter):
            raise VitrailError(
                f"RandAugment, TrivialAugment and colour jitter are for 1 or 3 channels, not {self.mode}.\n"
                "Use --augment photo or small (crops and flips); --erasing works too."
            )
        # Of a large JPEG no more is decoded than the least crop needs.
        self.draft = int(preprocess.size / sqrt(augment.scale[0])) if augment.crop == "resized" else None
        self._padding = max(1, round(augment.padding * preprocess.size)) if augment.padding else 0

    def leaves(self, channels: int, height: int, width: int) -> bool:
        """Tell whether `to_pixels` would leave images of this shape as they are."""
        return self.augment.crop != "resized" and self._still.leaves(channels, height, width)

    def to_pixels(self, image: Image.Image, draws: BatchRng | None = None) -> Tensor:
        """Bring an image to the model's size; `draws` are those of this image (needed for a `resized` crop)."""
        if self.augment.crop != "resized":
            return self._still.to_pixels(image)
        assert draws is not None and len(draws) == 1
        box, side = random_box(image.size, draws, self.augment.scale, self.augment.ratio), self.preprocess.size
        return self.pixels.resize(image, box, (side, side), (0, 0), side, self.preprocess.interpolation)

    def vary(self, pixels: Tensor, draws: BatchRng) -> Varied:
        """Augment `(B, C, size, size)`: shift and flip, apply the policy, draw the boxes to erase."""
        augment = self.augment
        padding = self._padding if augment.crop == "pad" else 0
        if padding or augment.flip:
            pixels = self.pixels.move(pixels, draws, padding, augment.border, augment.flip)
        if augment.policy == "rand":
            pixels = rand_augment(pixels, draws, augment.operations, augment.magnitude)
        elif augment.policy == "trivial":
            pixels = trivial_augment(pixels, draws)
        if augment.jitter:
            pixels = jitter(pixels, draws, augment.jitter)
        if not augment.erase:
            return pixels, None
        shape = (self.preprocess.channels, *pixels.shape[-2:])
        return pixels, draw_holes(shape, draws, augment.erase, augment.erase_fill)

    def finish(self, pixels: Tensor, holes: EraseBoxes | None = None) -> Tensor:
        """Normalise, and erase the drawn boxes."""
        images = self.pixels.normalize(pixels, self.preprocess)
        return images if holes is None else holes.cut(images)

    def batch(self, pixels: Tensor, draws: BatchRng) -> Tensor:
        """Take the last two steps at once."""
        return self.finish(*self.vary(pixels, draws))


Transform = EvalTransform | TrainTransform


def random_box(size: tuple[int, int], draws: BatchRng, scale: tuple[float, float], ratio: tuple[float, float]) -> Box:
    """Draw the box of a random resized crop: left, top, right, bottom.

    Paper: Szegedy et al., "Going deeper with convolutions" (2015), section 6. Ten tries, then the largest box in the
    middle whose shape is allowed, as in torchvision.

    Example:
        >>> import numpy as np
        >>> box = random_box((40, 30), BatchRng(0, 0, np.arange(1)), scale=(0.2, 0.5), ratio=(1.0, 1.0))
        >>> len(box)
        4
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
