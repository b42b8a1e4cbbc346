"""Small images of one size, decoded once.

Decoding a 32x32 JPEG takes far longer than using it. Such a data set is decoded into one array in the cache, which
every later run (and every worker process) maps into its memory.
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
"""Images with a longer side are left as files."""

_PROBES, _CHUNK = 32, 256


class _Decoded(NamedTuple):
    pixels: np.ndarray  # (n, C, Y, X)
    faults: list[DataProblem]
    other_size: bool


def pack(images: ImageSet, bad: Literal["fail", "skip"] = "fail") -> tuple[ImageSet, list[DataProblem]]:
    """Decode a set whose images all have one small size; any other set is returned as it is.

    Args:
        images: the set.
        bad: `fail` raises for images that cannot be decoded, `skip` leaves them out.

    Returns:
        The set, and the images that were left out.
    """
    store = images.store
    size = _common_size(images) if isinstance(store, Files) else None
    if size is None or not isinstance(store, Files):
        return images, []
    base = cache_folder("pixels") / fingerprint("pixels 1", images.ids, *_stamps(store))
    about = base.with_suffix(".json")
    if not about.exists() and not _decode(images, size, base):
        return images, []
    meta = json.loads(about.read_bytes())
    faults = [DataProblem(*fault) for fault in meta["faults"]]
    if faults and bad == "fail":
        raise unreadable_images(images.name, faults)
    if not meta["shape"][0]:
        raise unreadable_images(images.name, faults)
    left_out = {fault.id for fault in faults}
    kept = [number for number, name in enumerate(images.ids) if name not in left_out]
    pixels = np.memmap(base.with_suffix(".raw"), dtype=np.uint8, mode="r", shape=tuple(meta["shape"]))
    ids, labels = [images.ids[number] for number in kept], images.labels.numpy()[kept]
    packed = ImageSet(images.name, images.classes, ids, labels, Arrays(pixels))
    packed.folds = None if images.folds is None else images.folds[kept]
    return packed, faults


def unreadable_images(name: str, faults: list[DataProblem]) -> DataError:
    """Build the error for images that cannot be decoded, when the policy is to fail."""
    lines = [f"  {fault}" for fault in faults[:3]] + ([f"  and {len(faults) - 3} more"] if len(faults) > 3 else [])
    return DataError(
        "\n".join([f"{len(faults)} images of {name} cannot be read:", *lines])
        + '\nMend them (`vitrail data check` lists them all), or leave them out: --bad skip (bad="skip").'
    )


def _common_size(images: ImageSet) -> tuple[int, int] | None:
    """Return the size that some images, spread over the set, have in common, if it is small."""
    assert isinstance(images.store, Files)
    sizes = set()
    for number in np.linspace(0, len(images) - 1, min(_PROBES, len(images))).astype(int):
        place = images.store.places[number]
        try:
            sizes.add(read_size(place.read() if isinstance(place, Span) else place, images.ids[number]))
        except ImageDecodeError:
            continue  # said with its reason when it is decoded
        if len(sizes) > 1 or max(max(sizes)) > LARGEST_SIDE:
            return None
    return sizes.pop() if sizes else None


def _stamps(store: Files) -> Iterator[object]:
    """Yield file stamps, which change if an image changes."""
    tars: dict[Path, object] = {}
    for place in store.places:
        if isinstance(place, Span):
            if place.path not in tars:
                tars[place.path] = stamp(place.path)
                yield tars[place.path]
            yield place.offset, place.size
        else:
            yield stamp(place) if place.exists() else str(place)


def _decode(images: ImageSet, size: tuple[int, int], base: Path) -> bool:
    """Decode everything into `base.raw` and say so in `base.json`; False where an image has another size."""
    chunks = [range(start, min(start + _CHUNK, len(images))) for start in range(0, len(images), _CHUNK)]
    faults, count, grey = [], 0, True
    raw = base.with_suffix(".raw")
    with written(raw) as file:
        for done in in_parallel(_Decoder(images, size), chunks, f"decoding {images.name}"):
            if done.other_size:
                break
            file.write(done.pixels.tobytes())
            faults += done.faults
            count += len(done.pixels)
            grey = grey and bool((done.pixels == done.pixels[:, :1]).all())
        else:
            done = None
    if done is not None:
        raw.unlink()
        return False
    shape = (count, 3, size[1], size[0])
    if grey and count:
        shape = _keep_one_channel(raw, shape)
    with written(base.with_suffix(".json")) as file:
        file.write(json.dumps({"shape": shape, "faults": faults}).encode())
    return True


def _keep_one_channel(raw: Path, shape: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    colour = np.memmap(raw, dtype=np.uint8, mode="r", shape=shape)
    with written(raw) as file:
        for start in range(0, shape[0], _CHUNK):
            file.write(colour[start : start + _CHUNK, :1].tobytes())
    return shape[0], 1, *shape[2:]


class _Decoder:
    """Decode chunks of images; runs in worker processes."""

    def __init__(self, images: ImageSet, size: tuple[int, int]) -> None:
        self.images, self.size = images, size

    def __call__(self, chunk: range) -> _Decoded:
        planes, faults = [], []
        for number in chunk:
            try:
                image = self.images.image(number)
            except ImageDecodeError as error:
                faults.append(DataProblem(self.images.ids[number], error.reason, error.kind))
                continue
            if image.size != self.size:
                return _Decoded(np.empty(0), [], other_size=True)
            planes.append(np.asarray(image).transpose(2, 0, 1))
        empty = np.empty((0, 3, *self.size[::-1]), dtype=np.uint8)
        return _Decoded(np.stack(planes) if planes else empty, faults, other_size=False)
