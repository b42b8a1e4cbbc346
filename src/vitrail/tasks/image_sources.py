"""Image sources: paths, folders, patterns, PIL images, arrays and tensors, read through one interface."""

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from vitrail.data.class_folders import FOREIGN
from vitrail.data.color import to_grey, to_rgb
from vitrail.data.image_io import BANDS, EXTENSIONS, open_image, printable
from vitrail.errors import VitrailError

VIDEOS = frozenset([".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"])
"""Endings of videos, whose frames are images if the file itself is named; folders are not searched for them."""
_WHITE = (255, 255, 255)
_TAKEN = EXTENSIONS | FOREIGN - {".svg", ".eps", ".pdf"}
"""Endings of images in a folder; those that are not read get a result with the reason."""


@dataclass(frozen=True)
class SourceImage:
    """An image that has not been read yet.

    Args:
        name: its path, or its name in results.
        read: returns the image; raises `DataError` if it cannot be read.
        held: the image, if the caller already holds it in memory.
        draft: returns the image decoded at a smaller scale with sides of at least this length, if its format can do so
            without moving a pixel; None if there is nothing to decode.
        content: bytes of its file, if they came from memory and not from a path.
    """

    name: str
    read: Callable[[], Image.Image]
    held: Image.Image | None = None
    draft: Callable[[int], Image.Image] | None = None
    content: bytes | None = None


def find_images(source: object, mode: str = "RGB") -> list[SourceImage]:
    """List the images of a source without reading them; those of a folder are sorted by path.

    Args:
        source: a path, a folder (searched recursively), a pattern such as `photos/*.jpg`, a PIL image, an array
            `(Y, X)` or `(Y, X, C)`, a tensor `(C, Y, X)` or a batch `(B, C, Y, X)` of uint8 0..255 or floats 0..1; or
            any of these in an iterable.
        mode: `RGB`, or `L` for models of one channel.

    Raises:
        VitrailError: there are no images, or the values are not those of an image.
    """
    images = list(_walk(source, mode))
    if not images:
        raise VitrailError("No images were given. Name files, a folder, or a pattern such as 'photos/*.jpg'.")
    return [_numbered(i, image) for i, image in enumerate(images)]


def _walk(source: Any, mode: str) -> Iterator[SourceImage]:
    if isinstance(source, str | os.PathLike):
        for path in _paths(os.fspath(source)):
            yield _file(path, mode)
    elif isinstance(source, Image.Image):
        yield _held(source, mode)
    elif hasattr(source, "images") and hasattr(source, "place"):  # frames of a video or a camera
        yield from source.images(mode)
    elif isinstance(source, torch.Tensor):
        yield from _walk_tensor(source, mode)
    elif isinstance(source, np.ndarray):
        yield _held(_from_array(source), mode)
    elif isinstance(source, Iterable) and not isinstance(source, bytes | bytearray):
        for each in source:
            yield from _walk(each, mode)
    else:
        raise VitrailError(
            f"A {type(source).__name__} is not an image. Give a path, a PIL image, an array or a tensor."
        )


def _file(path: str, mode: str) -> SourceImage:
    def draft(least: int | None) -> Image.Image:
        return open_image(path, mode, draft=least, aligned=True, name=printable(path))

    return SourceImage(path, lambda: draft(None), draft=draft)


def _paths(text: str) -> list[str]:
    """Return the files of a path or a pattern. An existing path is never taken for a pattern."""
    if os.path.isdir(text):
        return _folder(text)
    if os.path.lexists(text):
        return [text]
    if glob.has_magic(text):
        found = sorted(path for path in glob.glob(text, recursive=True) if not os.path.isdir(path))
        if found:
            return found
        raise VitrailError(f"No file matches the pattern '{text}' (looked from {os.getcwd()}).")
    if "://" in text:
        raise VitrailError(f"'{text}' is an address; nothing is downloaded. Save the image, and give its path.")
    raise VitrailError(f"There is no image at '{text}' (looked from {os.getcwd()}).")


def _folder(text: str) -> list[str]:
    files = [os.path.join(root, name) for root, _, names in os.walk(text) for name in names if name[0] != "."]
    endings = {Path(path).suffix.lower() for path in files}
    taken = _TAKEN if endings & _TAKEN else BANDS  # arrays beside images are something else
    found = [path for path in files if Path(path).suffix.lower() in taken]
    if not found:
        videos = sum(Path(path).suffix.lower() in VIDEOS for path in files)
        count = "1 video" if videos == 1 else f"{videos} videos"
        but = f", but {count}, which `vitrail predict` takes by name" if videos else ""
        endings = " ".join(sorted(EXTENSIONS))
        raise VitrailError(f"The folder '{text}' holds no images{but}.\nFiles with these endings are taken: {endings}")
    return sorted(found)


def _walk_tensor(tensor: torch.Tensor, mode: str) -> Iterator[SourceImage]:
    if tensor.ndim not in (3, 4) or tensor.shape[-3] not in (1, 3):
        raise VitrailError(
            f"A tensor of shape {tuple(tensor.shape)} is not an image.\n"
            "Give (C, Y, X) or a batch (B, C, Y, X) with 1 or 3 channels."
        )
    for each in tensor.detach().cpu().reshape(-1, *tensor.shape[-3:]):
        values = each.float() if each.is_floating_point() else each
        yield _held(_from_array(values.permute(1, 2, 0).numpy()), mode)  # (C, Y, X) -> (Y, X, C)


def _from_array(array: np.ndarray) -> Image.Image:
    """Make an image of uint8 values 0..255, or of floats 0..1."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise VitrailError(f"An array of shape {array.shape} is not an image. Give (Y, X), (Y, X, 1) or (Y, X, 3).")
    if np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):
            raise VitrailError(
                f"Float images hold values in 0..1; this one has {low:.3g} to {high:.3g}.\n"
                "Divide by its largest value; for tensors that are normalised already, call model(images)."
            )
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise VitrailError(f"Values of type {array.dtype} are not an image. Give uint8 in 0..255 or floats in 0..1.")
    return Image.fromarray(np.ascontiguousarray(array))


def _held(image: Image.Image, mode: str) -> SourceImage:
    def read() -> Image.Image:
        upright = ImageOps.exif_transpose(image)
        return to_rgb(upright, _WHITE) if mode == "RGB" else to_grey(upright, _WHITE)

    return SourceImage("", read, held=image)


def _numbered(i: int, image: SourceImage) -> SourceImage:
    return image if image.name else replace(image, name=f"image {i}")
