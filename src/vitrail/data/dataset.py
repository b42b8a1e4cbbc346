"""A set of images with labels, wherever the images live."""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Protocol, Self
from zlib import crc32

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils import data

from vitrail.data.bands import bands_of
from vitrail.data.image_io import ANY, ImageDecodeError, open_image, open_regular


class ImageSample(NamedTuple):
    """One image `(C, Y, X)` of uint8, its class number and its id."""

    image: Tensor
    label: int
    id: str


class Span(NamedTuple):
    """Bytes inside a larger file: a member of a tar."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the bytes."""
        with open_regular(self.path) as file:
            file.seek(self.offset)
            return file.read(self.size)


class Store(Protocol):
    """Where images live."""

    def __len__(self) -> int: ...

    def open(self, number: int, name: str, mode: str, draft: int | None) -> Image.Image:
        """Return an image, upright, in `mode`."""
        ...

    def take(self, chosen: np.ndarray) -> "Store":
        """Return some of the images, in that order."""
        ...

    def sizes(self) -> Sequence[int]:
        """Return the bytes of each image as it is stored; 0 if they are unknown."""
        ...


class Files:
    """Encoded images: files, or members of a tar.

    Args:
        places: a path or a span for each image.
    """

    def __init__(self, places: Sequence[Path | Span]) -> None:
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def open(self, number: int, name: str, mode: str, draft: int | None) -> Image.Image:
        """Decode an image."""
        place = self.places[number]
        return open_image(place.read() if isinstance(place, Span) else place, mode, draft=draft, name=name)

    def take(self, chosen: np.ndarray) -> Self:
        """Return some of the images."""
        return type(self)([self.places[number] for number in chosen])

    def sizes(self) -> list[int]:
        """Return the sizes of the files."""
        return [place.size if isinstance(place, Span) else _size(place) for place in self.places]


class Arrays:
    """Decoded images of one size, as rows of one array (which may be a file mapped into memory).

    Args:
        pixels: `(n, C, Y, X)` of uint8, C is 1 or 3.
        rows: the row of each image; all of them by default.
    """

    def __init__(self, pixels: np.ndarray, rows: np.ndarray | None = None) -> None:
        self.pixels = pixels
        self.rows = np.arange(len(pixels)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def open(self, number: int, name: str, mode: str, draft: int | None) -> Image.Image:
        """Return an image."""
        planes = self.pixels[self.rows[number]]
        if bands_of(mode) is not None:
            raise ImageDecodeError(
                name, f"it was decoded to {len(planes)} channels, and the model takes {mode}", "format"
            )
        image = Image.fromarray(planes[0] if len(planes) == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0)))
        return image if mode == ANY else image.convert(mode)

    def gather(self, index: np.ndarray) -> Tensor:
        """Return a batch, `(B, C, Y, X)` of uint8."""
        return torch.from_numpy(np.ascontiguousarray(self.pixels[self.rows[index]]))

    def take(self, chosen: np.ndarray) -> Self:
        """Return some of the images, without copying pixels."""
        return type(self)(self.pixels, self.rows[chosen])

    def sizes(self) -> list[int]:
        """Return a checksum of the pixels of each image, which has no file."""
        return [crc32(self.pixels[row].tobytes()) for row in self.rows]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


class ImageSet(data.Dataset[ImageSample]):
    """Images with labels and stable ids.

    Args:
        name: name of the set in messages, such as `cifar10.tar.gz train`.
        classes: names of the classes; a label is a place in this tuple.
        ids: a stable name of each image, its path inside the data set.
        labels: class number of each image.
        store: where the images live.

    Example:
        >>> from vitrail.data.datasets import open_dataset
        >>> digits = open_dataset("digits").require("train")
        >>> digits[0].image.shape, digits.classes[:3]
        (torch.Size([1, 8, 8]), ('0', '1', '2'))
    """

    def __init__(
        self, name: str, classes: tuple[str, ...], ids: Sequence[str], labels: Sequence[int] | np.ndarray, store: Store
    ) -> None:
        assert len(ids) == len(labels) == len(store), (name, len(ids), len(labels), len(store))
        self.name, self.classes, self.ids, self.store = name, classes, tuple(ids), store
        self.labels = torch.as_tensor(np.asarray(labels, dtype=np.int64))
        self.folds: np.ndarray | None = None  # the fold of each image, if a table gives it

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> ImageSample:
        grey = self.pixels is not None and self.pixels.shape[1] == 1
        image = self.image(number, "L" if grey else "RGB")
        planes = torch.from_numpy(np.array(image).reshape(image.height, image.width, -1)).permute(2, 0, 1)
        return ImageSample(planes.contiguous(), int(self.labels[number]), self.ids[number])

    @property
    def pixels(self) -> np.ndarray | None:
        """The array that holds the images, where they are decoded already (rows: `store.rows`)."""
        return self.store.pixels if isinstance(self.store, Arrays) else None

    def image(self, number: int, mode: str = "RGB", draft: int | None = None) -> Image.Image:
        """Return an image; errors carry its id."""
        return self.store.open(number, self.ids[number], mode, draft)

    def digest(self) -> str:
        """Return a hash of ids, labels and file sizes: it changes if images are added, removed or exchanged."""
        content = blake2b(digest_size=16)
        content.update("\0".join(self.ids).encode("utf-8", "backslashreplace"))
        content.update(self.labels.numpy().tobytes())
        content.update(np.array(self.store.sizes(), dtype=np.int64).tobytes())
        return content.hexdigest()

    def counts(self) -> dict[str, int]:
        """Return the number of images of each class."""
        counts = np.bincount(self.labels.numpy(), minlength=len(self.classes))
        return dict(zip(self.classes, counts.tolist(), strict=True))

    def take(self, chosen: Sequence[int] | np.ndarray, name: str | None = None) -> "ImageSet":
        """Return some of the images as a set of its own."""
        index = np.asarray(chosen, dtype=np.int64)
        ids = [self.ids[number] for number in index]
        taken = ImageSet(name or self.name, self.classes, ids, self.labels.numpy()[index], self.store.take(index))
        taken.folds = None if self.folds is None else self.folds[index]
        return taken
