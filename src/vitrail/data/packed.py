"""Datasets of small images of one size, decoded once into a memory-mapped array.

Decoding a 32x32 JPEG takes far longer than the transforms on it. Such a dataset is decoded into one array in the cache,
which every later run and every worker process maps into memory.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from vitrail.cache import cache_folder, fingerprint, stamp, written
from vitrail.data.dataset import Arrays, Files, ImageSet, Span
from vitrail.data.image_io import ImageDecodeError, read_size
from vitrail.data.index import DataProblem
from vitrail.data.parallel import in_parallel
from vitrail.errors import DataError

LARGEST_SIDE = 96
"""Maximum side in pixels; datasets of larger images are not packed."""

_PROBES, _CHUNK = 32, 256
"""Number of images whose size is probed, and chunk size of a decoding worker."""


class _Decoded(NamedTuple):
    """Decoded chunk: pixels, decoding errors, and whether an image has another size than the dataset."""

    pixels: np.ndarray  # (n, C, Y, X) of uint8
    faults: list[DataProblem]
    other_size: bool


def pack(images: ImageSet, bad: Literal["fail", "skip"] = "fail") -> tuple[ImageSet, list[DataProblem]]:
    """Decode a dataset whose images all have the same small size; any other dataset is returned unchanged.

    Args:
        images: the dataset.
        bad: `fail` raises for images that cannot be decoded, `skip` drops them.

    Returns:
        The packed dataset, and the dropped images with their decoding errors.

    Raises:
        DataError: an image cannot be decoded (with `bad="skip"`: none can).
    """
    store = images.store
    size = _common_size(images) if isinstance(store, Files) else None
    if size is None or not isinstance(store, Files):
        return images, []
    base = cache_folder("pixels") / fingerprint("pixels 1", images.ids, *_stamps(store))
    metadata_file = base.with_suffix(".json")
    if not metadata_file.exists() and not _decode(images, size, base):
        return images, []
    metadata = json.loads(metadata_file.read_bytes())
    faults = [DataProblem(*fault) for fault in metadata["faults"]]
    if (faults and bad == "fail") or not metadata["shape"][0]:
        raise unreadable_images(images.name, faults)
    dropped = {fault.id for fault in faults}
    kept = [index for index, name in enumerate(images.ids) if name not in dropped]
    pixels = np.memmap(base.with_suffix(".raw"), dtype=np.uint8, mode="r", shape=tuple(metadata["shape"]))
    ids, labels = [images.ids[index] for index in kept], images.labels.numpy()[kept]
    packed = ImageSet(images.name, images.classes, ids, labels, Arrays(pixels))
    packed.folds = None if images.folds is None else images.folds[kept]
    return packed, faults


def unreadable_images(name: str, faults: list[DataProblem]) -> DataError:
    """Return the error for images that cannot be decoded under `bad="fail"`."""
    lines = [f"  {fault}" for fault in faults[:3]] + ([f"  and {len(faults) - 3} more"] if len(faults) > 3 else [])
    return DataError(
        "\n".join([f"{len(faults)} images of {name} cannot be read:", *lines])
        + '\nMend them (`vitrail data check` lists them all), or leave them out: --bad skip (bad="skip").'
    )


def _common_size(images: ImageSet) -> tuple[int, int] | None:
    """Return the common size of evenly spaced probe images, or None if they differ or are large."""
    assert isinstance(images.store, Files)
    sizes = set()
    for index in np.linspace(0, len(images) - 1, min(_PROBES, len(images))).astype(int):
        place = images.store.places[index]
        try:
            sizes.add(read_size(place.read() if isinstance(place, Span) else place, images.ids[index]))
        except ImageDecodeError:
            continue  # reported with its reason when the dataset is decoded
        if len(sizes) > 1 or max(max(sizes)) > LARGEST_SIDE:
            return None
    return sizes.pop() if sizes else None


def _stamps(store: Files) -> Iterator[object]:
    """Yield the cache key of the files: stamps that change if an image changes, one for each archive."""
    archives: set[Path] = set()
    for place in store.places:
        if isinstance(place, Span):
            if place.path not in archives:
                archives.add(place.path)
                yield stamp(place.path)
            yield place.offset, place.size
        else:
            yield stamp(place) if place.exists() else str(place)


def _decode(images: ImageSet, size: tuple[int, int], base: Path) -> bool:
    """Decode all images into `base.raw` with metadata in `base.json`; return False if an image has another size."""
    chunks = [range(start, min(start + _CHUNK, len(images))) for start in range(0, len(images), _CHUNK)]
    faults, count, grey = [], 0, True
    raw = base.with_suffix(".raw")
    with written(raw) as file:
        for decoded in in_parallel(_Decoder(images, size), chunks, f"decoding {images.name}"):
            if decoded.other_size:
                break
            file.write(decoded.pixels.tobytes())
            faults += decoded.faults
            count += len(decoded.pixels)
            grey = grey and bool((decoded.pixels == decoded.pixels[:, :1]).all())
        else:
            decoded = None
    if decoded is not None:
        raw.unlink()
        return False
    shape = (count, 3, size[1], size[0])
    if grey and count:
        shape = _keep_one_channel(raw, shape)
    with written(base.with_suffix(".json")) as file:
        file.write(json.dumps({"shape": shape, "faults": faults}).encode())
    return True


def _keep_one_channel(raw: Path, shape: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Rewrite a grey array with one channel; return its new shape."""
    colour = np.memmap(raw, dtype=np.uint8, mode="r", shape=shape)
    with written(raw) as file:
        for start in range(0, shape[0], _CHUNK):
            file.write(colour[start : start + _CHUNK, :1].tobytes())
    return shape[0], 1, *shape[2:]


class _Decoder:
    """Decoder of chunks of images; runs in worker processes."""

    def __init__(self, images: ImageSet, size: tuple[int, int]) -> None:
        self.images, self.size = images, size

    def __call__(self, chunk: range) -> _Decoded:
        planes, faults = [], []
        for index in chunk:
            try:
                image = self.images.image(index)
            except ImageDecodeError as error:
                faults.append(DataProblem(self.images.ids[index], error.reason, error.kind))
                continue
            if image.size != self.size:
                return _Decoded(np.empty(0), [], other_size=True)
            planes.append(np.asarray(image).transpose(2, 0, 1))
        empty = np.empty((0, 3, *self.size[::-1]), dtype=np.uint8)
        return _Decoded(np.stack(planes) if planes else empty, faults, other_size=False)
