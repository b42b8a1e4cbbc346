"""Degradations of images: each a function of an image and of draws that depend on seed, step and sample alone.

A degradation is `(image, rng) -> image` on `(Y, X, C)` float32 in 0..255; `rng` is a `BatchRng` of one sample. `parse`
reads them from text: `bicubic`, `noise:25`, `noise:0-50`, `blur:0.5-2`, `jpeg:10-40`, `real-esrgan`, and chains such as
`blur:0.2-1.5+bicubic+noise:0-10+jpeg:60-95`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol

import numpy as np
from PIL import Image

from vitrail.data.blur_kernels import filter_image, gaussian_kernel
from vitrail.data.matlab_resize import imresize
from vitrail.data.stateless_rng import BatchRng
from vitrail.errors import VitrailError


class Degradation(Protocol):
    """A degradation."""

    @property
    def scale(self) -> int:
        """Factor by which the image gets smaller."""
        ...

    @property
    def reach(self) -> int:
        """Input pixels around a pixel that its output depends on."""
        ...

    def __call__(self, image: np.ndarray, rng: BatchRng) -> np.ndarray: ...


def to_8_bit(image: np.ndarray) -> np.ndarray:
    """Round to 0..255, as a file would.

    Example:
        >>> to_8_bit(np.array([-3.0, 1.4, 300.0])).tolist()
        [0.0, 1.0, 255.0]
    """
    return np.clip(np.round(image), 0, 255).astype(np.float32)


@dataclass(frozen=True)
class Bicubic:
    """MATLAB's bicubic downscaling, rounded to 8 bits.

    Args:
        scale: factor by which the image gets smaller.
    """

    scale: int

    @property
    def reach(self) -> int:
        """Input pixels around a pixel that its output depends on."""
        return 4 * self.scale

    def __call__(self, image: np.ndarray, rng: BatchRng) -> np.ndarray:
        if self.scale == 1:
            return image
        return imresize(to_8_bit(image).astype(np.uint8), 1 / self.scale).astype(np.float32)


@dataclass(frozen=True)
class GaussianNoise:
    """Additive white Gaussian noise; the result is neither rounded nor clipped, as in papers on denoising.

    Args:
        low: least standard deviation, of pixels in 0..255.
        high: largest standard deviation.
    """

    low: float
    high: float
    scale: int = 1
    reach: int = 0

    def __call__(self, image: np.ndarray, rng: BatchRng) -> np.ndarray:
        sigma = rng.uniform("noise level", self.low, self.high)[0] if self.high > self.low else self.low
        return image + np.float32(sigma) * rng.normal("noise", image.size)[0].reshape(image.shape).astype(np.float32)


@dataclass(frozen=True)
class GaussianBlur:
    """Isotropic Gaussian blur with mirrored edges.

    Args:
        low: least standard deviation, in pixels.
        high: largest standard deviation.
    """

    low: float
    high: float
    scale: int = 1

    @property
    def reach(self) -> int:
        """Input pixels around a pixel that its output depends on."""
        return int(np.ceil(3 * self.high))

    def __call__(self, image: np.ndarray, rng: BatchRng) -> np.ndarray:
        sigma = rng.uniform("blur", self.low, self.high)[0] if self.high > self.low else self.low
        return filter_image(image, gaussian_kernel(2 * self.reach + 1, max(sigma, 1e-3)))


@dataclass(frozen=True)
class JPEG:
    """JPEG compression by Pillow, chroma at half resolution as usual.

    Args:
        low: least quality, 1 to 100.
        high: largest quality.
    """

    low: float
    high: float
    scale: int = 1
    reach: int = 16

    def __call__(self, image: np.ndarray, rng: BatchRng) -> np.ndarray:
        quality = round(float(rng.uniform("jpeg", self.low, self.high)[0]))
        return compress(image, quality)


def compress(image: np.ndarray, quality: int) -> np.ndarray:
    """Return an image after JPEG compression.

    Example:
        >>> image = np.full((8, 8, 3), 100.0, np.float32)
        >>> compress(image, 90).shape, float(abs(compress(image, 90) - image).max()) <= 2
        ((8, 8, 3), True)
    """
    pixels = to_8_bit(image).astype(np.uint8)
    grey = pixels.shape[2] == 1
    buffer = BytesIO()
    Image.fromarray(pixels[..., 0] if grey else pixels).save(buffer, "JPEG", quality=quality)
    decoded = np.asarray(Image.open(BytesIO(buffer.getvalue()), formats=("JPEG",)), np.float32)
    return decoded[..., None] if grey else decoded


@dataclass(frozen=True)
class Chain:
    """Degradations one after the other.

    Args:
        steps: the degradations.
    """

    steps: Sequence[Degradation]

    @property
    def scale(self) -> int:
        """Factor by which the image gets smaller."""
        return int(np.prod([step.scale for step in self.steps]))

    @property
    def reach(self) -> int:
        """Input pixels around a pixel that its output depends on."""
        total, scale = 0, 1
        for step in self.steps:
            total, scale = total + step.reach * scale, scale * step.scale
        return total

    def __call__(self, image: np.ndarray, rng: BatchRng) -> np.ndarray:
        for number, step in enumerate(self.steps):
            image = step(image, rng.at(number) if number else rng)
        return image


_NAMES = ("bicubic", "noise", "blur", "jpeg", "real-esrgan")
_RANGED = {"noise": (GaussianNoise, 0, 255), "blur": (GaussianBlur, 0, 20), "jpeg": (JPEG, 1, 100)}


def parse(text: str, scale: int) -> Degradation:
    """Read a degradation for a model of some scale.

    Args:
        text: such as `bicubic`, `noise:25` or `blur:0.2-2+bicubic+jpeg:30-90`.
        scale: scale of the model; the degradation must have the same.

    Raises:
        VitrailError: unknown name, bad number, or another scale.

    Example:
        >>> parse("noise:15-50", scale=1)
        GaussianNoise(low=15.0, high=50.0, scale=1, reach=0)
        >>> parse("bicubic", scale=4)
        Bicubic(scale=4)
    """
    steps = [_step(part.strip(), scale) for part in text.split("+")]
    chain = steps[0] if len(steps) == 1 else Chain(tuple(steps))
    if chain.scale != scale:
        kept = "keeps the size of an image" if chain.scale == 1 else f"makes images {chain.scale} times smaller"
        hint = f" Add bicubic to it: {text}+bicubic." if chain.scale == 1 else ""
        raise VitrailError(f"{text} {kept}, and the model has scale {scale}.{hint}")
    return chain


def _step(text: str, scale: int) -> Degradation:
    name, _, numbers = text.partition(":")
    if name == "bicubic" and not numbers:
        return Bicubic(scale)
    if name == "real-esrgan" and not numbers:
        from vitrail.data.second_order import SecondOrder

        return SecondOrder(scale)
    if name not in _RANGED:
        raise VitrailError(
            f"Unknown degradation {text!r}. Known: {', '.join(_NAMES)}; numbers as in noise:25, jpeg:10-40."
        )
    kind, least, most = _RANGED[name]
    low, _, high = numbers.partition("-")
    try:
        values = float(low), float(high or low)
    except ValueError:
        raise VitrailError(
            f"{text!r} needs a number or a range: {name}:{least + 10}, {name}:{least + 10}-20."
        ) from None
    if not least <= values[0] <= values[1] <= most:
        raise VitrailError(f"{text!r} must lie within {least} and {most}, the lower number first.")
    return kind(*values)
