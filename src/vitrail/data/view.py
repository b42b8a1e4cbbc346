"""Geometry of a training sample, drawn once and applied to image, mask and boxes alike."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from vitrail.data.stateless_rng import BatchRng


@dataclass(frozen=True)
class View:
    """A box of the source image, brought to a size, then perhaps mirrored.

    x' = (x - left) * width / (right - left), and x' = width - x' if it is mirrored; y alike without the mirror

    Coordinates are edges of pixels: the centre of the first pixel is 0.5. Where the box leaves the image, the result is
    filled.

    Args:
        crop: left, top, right, bottom in source pixels; may leave the image.
        size: width and height of the result in pixels.
        flip: whether it is mirrored left to right.

    Example:
        >>> view = View((10.0, 0.0, 30.0, 10.0), (40, 20), flip=True)
        >>> view.boxes(np.array([[10, 0, 15, 10]])).tolist()
        [[30.0, 0.0, 40.0, 20.0]]
    """

    crop: tuple[float, float, float, float]
    size: tuple[int, int]
    flip: bool = False

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the result for one of the source, on each axis."""
        left, top, right, bottom = self.crop
        return self.size[0] / (right - left), self.size[1] / (bottom - top)

    def image(
        self,
        image: Image.Image,
        fill: int | tuple[int, ...] = 0,
        resample: Image.Resampling = Image.Resampling.BILINEAR,
    ) -> Image.Image:
        """Return the view of an image; `fill` is the colour beyond its border."""
        (left, top, right, bottom), (wide, tall), (sx, sy) = self.crop, self.size, self.scale
        box = max(left, 0.0), max(top, 0.0), min(right, float(image.width)), min(bottom, float(image.height))
        x0, x1 = (min(max(round((x - left) * sx), 0), wide) for x in (box[0], box[2]))
        y0, y1 = (min(max(round((y - top) * sy), 0), tall) for y in (box[1], box[3]))
        if (x0, y0, x1, y1) == (0, 0, wide, tall):
            seen = image.resize((wide, tall), resample, box)
        else:
            seen = Image.new(image.mode, (wide, tall), fill)
            if x1 > x0 and y1 > y0 and box[2] > box[0] and box[3] > box[1]:
                seen.paste(image.resize((x1 - x0, y1 - y0), resample, box), (x0, y0))
        return seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip else seen

    def mask(self, mask: np.ndarray, fill: int) -> np.ndarray:
        """Return the view of class numbers `(Y, X)`: the nearest pixel of the source, never a mean of numbers."""
        height, width = mask.shape
        (left, top, right, bottom), (wide, tall) = self.crop, self.size
        x = np.floor(left + (np.arange(wide) + 0.5) * ((right - left) / wide)).astype(np.int64)
        y = np.floor(top + (np.arange(tall) + 0.5) * ((bottom - top) / tall)).astype(np.int64)
        x = x[::-1] if self.flip else x
        seen = mask[np.clip(y, 0, height - 1)[:, None], np.clip(x, 0, width - 1)]
        outside = ((y < 0) | (y >= height))[:, None] | ((x < 0) | (x >= width))
        if outside.any():
            seen[outside] = fill
        return seen

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Return boxes `(n, 4)` of left, top, right, bottom in the view, not clipped to it."""
        (left, top, *_), (sx, sy) = self.crop, self.scale
        x = (np.asarray(boxes, dtype=np.float64).reshape(-1, 4)[:, [0, 2]] - left) * sx
        y = (np.asarray(boxes, dtype=np.float64).reshape(-1, 4)[:, [1, 3]] - top) * sy
        x = self.size[0] - x[:, ::-1] if self.flip else x
        return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)

    def source_boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Return boxes of the view in pixels of the source: the inverse of `boxes`."""
        (left, top, *_), (sx, sy) = self.crop, self.scale
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        x, y = boxes[:, [0, 2]], boxes[:, [1, 3]]
        x = self.size[0] - x[:, ::-1] if self.flip else x
        x, y = x / sx + left, y / sy + top
        return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)


def clip_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Clip boxes `(n, 4)` to an image of this width and height.

    Example:
        >>> clip_boxes(np.array([[-2.0, 1.0, 9.0, 3.0]]), (8, 8)).tolist()
        [[0.0, 1.0, 8.0, 3.0]]
    """
    return np.clip(boxes, 0, np.array([*size, *size], dtype=np.float64))


def whole_view(image_size: tuple[int, int], size: tuple[int, int]) -> View:
    """Return the whole image, brought to a size.

    Example:
        >>> whole_view((640, 480), (64, 64)).size
        (64, 64)
    """
    return View((0.0, 0.0, float(image_size[0]), float(image_size[1])), size)


def fit_view(image_size: tuple[int, int], short: int, longest: int | None = None) -> View:
    """Return the whole image with its short side brought to `short`, or less if the long one would exceed `longest`.

    Example:
        >>> fit_view((400, 200), 100).size, fit_view((400, 200), 100, longest=150).size
        ((200, 100), (150, 75))
    """
    scale = short / min(image_size)
    if longest is not None:
        scale = min(scale, longest / max(image_size))
    width, height = (max(round(side * scale), 1) for side in image_size)
    return whole_view(image_size, (width, height))


def draw_view(
    image_size: tuple[int, int],
    draws: BatchRng,
    size: tuple[int, int],
    scale: tuple[float, float] = (0.5, 2.0),
    flip: float = 0.5,
    attempt: int = 0,
) -> View:
    """Draw a view: scale the image at random, cut a window of `size` at a random place, mirror.

    Scale jitter as in mmsegmentation and detectron2: the factor is uniform in `scale`. An axis on which the scaled
    image is shorter than the window is padded at its end.

    Args:
        image_size: width and height of the image.
        draws: the draws of this sample alone.
        size: width and height of the window.
        scale: least and greatest factor on the image.
        flip: probability of the mirror.
        attempt: number of the try; each has other numbers.
    """
    assert len(draws) == 1
    purpose = f"view {attempt}" if attempt else "view"
    factor, across, down = draws.uniform(purpose, count=3)[0].tolist()
    factor = scale[0] + (scale[1] - scale[0]) * factor
    corner, extent = [], []
    for side, window, place in zip(image_size, size, (across, down), strict=True):
        scaled = max(round(side * factor), 1)
        offset = int(place * (scaled - window + 1)) if scaled > window else 0
        corner.append(offset * side / scaled)
        extent.append(window * side / scaled)
    crop = (corner[0], corner[1], corner[0] + extent[0], corner[1] + extent[1])
    return View(crop, size, bool(draws.uniform("flip")[0] < flip))


def is_mixed(mask: np.ndarray, most: float, ignore: int) -> bool:
    """Return whether a mask holds several classes and none fills more than the share `most` of its labelled pixels.

    Example:
        >>> is_mixed(np.zeros((2, 2)), 0.75, 255), is_mixed(np.array([[0, 1], [1, 2]]), 0.75, 255)
        (False, True)
    """
    counts = np.unique(mask[mask != ignore], return_counts=True)[1]
    return len(counts) > 1 and bool(counts.max() <= most * counts.sum())
