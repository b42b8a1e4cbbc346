"""Resizing pictures, compiled: the pixels are Pillow's, to the bit, and only those that the crop keeps are computed."""

import ctypes
from functools import cache, lru_cache
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitrail.data.transform import Fit, centre
from vitrail.data.transform import fit as plain_fit
from vitrail.native.library import Unavailable, built, library

_ENOUGH = 200  # pictures, from which on it pays to compile this file where that was never done: some seconds
_POINT = 22  # bits of a weight behind the point, as in Pillow
_BYTES = 16  # the compiled loop takes so many at a time
_STORED = {"RGB": 4, "L": 1}  # bytes of a pixel in Pillow's memory
_REACH = {"bilinear": 1.0, "bicubic": 2.0}


def best_fit(pictures: int | None = None) -> Fit:
    """Return the fastest way to resize and crop for a job of so many pictures (None: many). All give the same pixels.

    Example:
        >>> image = Image.new("RGB", (300, 200), "red")
        >>> torch.equal(best_fit(1)(image, (96, 64), 64, "bicubic"), plain_fit(image, (96, 64), 64, "bicubic"))
        True
    """
    worth = pictures is None or pictures >= _ENOUGH or built("pictures")
    return fit if worth and agrees() else plain_fit


@cache
def agrees() -> bool:
    """Say whether this can be compiled, and gives the pixels of the Pillow that is installed: another may differ."""
    draw = np.random.default_rng(0)
    try:
        for height, width, size, side in ((50, 75, (48, 32), 24), (81, 60, (40, 54), 40), (33, 47, (56, 40), 32)):
            values = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
            for image in (Image.fromarray(values), Image.fromarray(values[:, :, 0].copy())):
                for kind in _REACH:
                    if not torch.equal(fit(image, size, side, kind), plain_fit(image, size, side, kind)):
                        return False
    except Unavailable:
        return False
    return True


class Taps(NamedTuple):
    """Which source bytes make up each pixel along one side.

    Args:
        starts: first of them, `(side,)` of int32.
        weights: `(side, taps)` of int32, one for each byte.
    """

    starts: np.ndarray
    weights: np.ndarray


def fit(image: Image.Image, size: tuple[int, int], side: int, interpolation: str) -> Tensor:
    """Resize, and crop a square from the centre, `(C, side, side)` of uint8: the same pixels as `transform.fit`.

    What is rare goes to Pillow: other interpolations, squares that reach beyond the picture, tiny and huge pictures.

    Raises:
        Unavailable: there is no compiler, or it failed.
    """
    left, top = centre(size, side)
    stored = _STORED.get(image.mode)
    tall = image.height > 2 * image.width  # Pillow begins with the columns then
    if stored is None or interpolation not in _REACH or min(left, top) < 0 or image.size == size or tall:
        return plain_fit(image, size, side, interpolation)
    across = along(image.width, size[0], left, side, interpolation, stored, _BYTES)
    down = along(image.height, size[1], top, side, interpolation, 1, 1)
    memory = None if across is None or down is None else _memory(image)
    if memory is None:
        return plain_fit(image, size, side, interpolation)
    address, holder = memory
    planes = torch.empty(len(image.getbands()), side, side, dtype=torch.uint8)
    library("pictures").vitrail_fit(
        ctypes.c_void_p(address),
        ctypes.c_long(image.width),
        stored,
        *_arguments(across),
        *_arguments(down),
        side,
        ctypes.c_void_p(planes.data_ptr()),
    )
    del holder  # until here it kept the pixels where they are
    return planes


@lru_cache(maxsize=512)
def along(length: int, size: int, first: int, side: int, interpolation: str, stored: int, multiple: int) -> Taps | None:
    """Return the taps of pixels `first` to `first + side` of a line of `length` that is resized to `size`.

    weight(t) = filter((t + 1/2 - centre) / max(scale, 1)), normalised; scale = length / size

    Args:
        length: pixels of the line.
        size: pixels that it is resized to.
        first: first pixel of the result that is wanted.
        side: how many are wanted.
        interpolation: `bilinear` or `bicubic`.
        stored: bytes of a pixel.
        multiple: of which the number of weights must be; the spare ones are zero.

    Returns:
        None where the line is too short for so many weights.

    Example:
        >>> taps = along(8, 4, 0, 4, "bilinear", 1, 1)
        >>> taps.starts.tolist(), taps.weights[1].tolist()
        ([0, 1, 3, 3], [524288, 1572864, 1572864, 524288, 0])
    """
    scale = length / size
    stretch = max(scale, 1.0)
    reach = _REACH[interpolation] * stretch
    middle = (np.arange(first, first + side) + 0.5) * scale
    starts = np.maximum((middle - reach + 0.5).astype(np.int64), 0)
    ends = np.minimum((middle + reach + 0.5).astype(np.int64), length)
    taps = (ceil(reach) * 2 + 1) * stored
    taps = (taps + multiple - 1) // multiple * multiple // stored
    if taps > length:
        return None
    places = starts[:, None] + np.arange(taps)
    weights = _FILTERS[interpolation]((places - middle[:, None] + 0.5) * (1 / stretch))
    weights[places >= ends[:, None]] = 0.0
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # added one by one, in Pillow's order
    whole = np.trunc(weights * (1 << _POINT) + np.copysign(0.5, weights)).astype(np.int32)
    # Nobody may read beyond the end of the line: the last ones begin earlier, with weights of zero.
    early = np.maximum(starts + taps - length, 0)
    moved = np.arange(taps) - early[:, None]
    whole = np.where(moved < 0, 0, np.take_along_axis(whole, np.maximum(moved, 0), axis=1))
    starts = ((starts - early) * stored).astype(np.int32)
    return Taps(starts, np.ascontiguousarray(whole.repeat(stored, axis=1)))


def _bilinear(x: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _bicubic(x: np.ndarray) -> np.ndarray:
    """Return Keys' cubic with a = -1/2, in the form that Pillow computes."""
    x, a = np.abs(x), -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


_FILTERS = {"bilinear": _bilinear, "bicubic": _bicubic}


class _ArrowArray(ctypes.Structure):
    """An array of the Arrow C data interface: the way that Pillow shows its own memory."""


_ArrowArray._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]

_pointer_in = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_in.restype, _pointer_in.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def _memory(image: Image.Image) -> tuple[int, Any] | None:
    """Return where the pixels lie, and what keeps them there; None where they lie in several pieces."""
    image.load()
    try:
        _, capsule = image.__arrow_c_array__()
    except ValueError:  # more than Pillow takes from the system at once
        return None
    array = ctypes.cast(_pointer_in(capsule, b"arrow_array"), ctypes.POINTER(_ArrowArray)).contents
    values = array.children[0].contents if array.n_children else array
    return values.buffers[1], (image, capsule)


def _arguments(taps: Taps | None) -> tuple[Any, ...]:
    assert taps is not None
    starts, weights = taps.starts.ctypes, taps.weights.ctypes
    return starts.data_as(ctypes.c_void_p), weights.data_as(ctypes.c_void_p), taps.weights.shape[1]
