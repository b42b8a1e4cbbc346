"""Small data sets for `finetune.py`, as folders `train/CLASS`, `val/CLASS` and `test/CLASS`."""

import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from vitrail.errors import DataError

SPLITS = ("train", "val", "test")


class Counts(NamedTuple):
    """Largest number of images of a class in each split."""

    train: int
    val: int
    test: int


def write_set(root: Path, images: Iterator[tuple[str, str, Any]], counts: Counts) -> Path:
    """Write images until each class of each split has its count.

    Args:
        root: folder of the set.
        images: `(split, class, image)` in a fixed order; an image is a Pillow image or the bytes of a file.
        counts: images of a class to keep.
    """
    written: Counter[tuple[str, str]] = Counter()
    for split, name, image in images:
        number = written[split, name]
        if number >= getattr(counts, split):
            continue
        written[split, name] += 1
        folder = root / split / name
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(image, bytes):
            (folder / f"{number:05}.jpg").write_bytes(image)
        else:
            image.save(folder / f"{number:05}.png")
    missing = [split for split in SPLITS if not any(key[0] == split for key in written)]
    if missing:
        raise DataError(f"{root.name} got no images for {', '.join(missing)}; look at the path that was given.")
    return root


def cifar10(archive: Path, counts: Counts) -> Iterator[tuple[str, str, bytes]]:
    """Read `train/CLASS/*.jpg` and `test/CLASS/*.jpg` of a tar; the images after those of `train` validate."""
    seen: Counter[tuple[str, str]] = Counter()
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts
            if not member.isfile() or len(parts) < 3:
                continue
            split, name = parts[-3], parts[-2]
            seen[split, name] += 1
            if split == "train" and seen[split, name] > counts.train:
                split = "val"
            if seen[parts[-3], name] <= counts.train + counts.val + counts.test:
                yield split, name, tar.extractfile(member).read()  # pyright: ignore[reportOptionalMemberAccess]


def bccd(folder: Path) -> Iterator[tuple[str, str, Image.Image]]:
    """Crop the boxes of a VOC folder, a fifth of each side added around; the class is that of the box."""
    for split in SPLITS:
        for name in (folder / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
            with Image.open(folder / "JPEGImages" / f"{name}.jpg") as file:
                image = file.convert("RGB")
            for box in ElementTree.parse(folder / "Annotations" / f"{name}.xml").iter("object"):
                corners = [int(box.findtext(f"bndbox/{key}") or 0) for key in ("xmin", "ymin", "xmax", "ymax")]
                if min(corners[2] - corners[0], corners[3] - corners[1]) >= 8:
                    yield split, box.findtext("name") or "", image.crop(_grown(corners, 0.2))


def sample_photos() -> Iterator[tuple[str, str, Image.Image]]:
    """Cut windows from scikit-learn's two photographs; the splits are strips that do not overlap."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    strips = {"train": (0.0, 0.6), "val": (0.6, 0.75), "test": (0.75, 1.0)}
    bunch: Any = load_sample_images()
    for name, pixels in zip(("palace", "flower"), bunch.images, strict=True):
        height, width = pixels.shape[:2]
        for split, (left, right) in strips.items():
            low, high = int(left * width), int(right * width)
            for _ in range(400):
                side = int(rng.integers(24, 65))
                x, y = int(rng.integers(low, high - side)), int(rng.integers(0, height - side))
                yield split, name, Image.fromarray(pixels[y : y + side, x : x + side])


def digits() -> Iterator[tuple[str, str, Image.Image]]:
    """Return scikit-learn's handwriting, 8 x 8 enlarged to 32 x 32."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    seen: dict[int, int] = defaultdict(int)
    for pixels, label in zip(bunch.images, bunch.target, strict=True):
        seen[label] += 1
        split = "test" if seen[label] > 100 else "val" if seen[label] > 80 else "train"
        image = Image.fromarray((pixels * 15.9375).astype(np.uint8))
        yield split, str(label), image.resize((32, 32), Image.Resampling.BICUBIC)


def _grown(corners: Sequence[int], share: float) -> tuple[int, int, int, int]:
    left, top, right, bottom = corners
    x, y = int(share * (right - left)), int(share * (bottom - top))
    return left - x, top - y, right + x, bottom + y


SETS: dict[str, tuple[Callable[..., Iterator[Any]], Counts]] = {
    "cifar10": (cifar10, Counts(200, 20, 100)),
    "bccd": (bccd, Counts(200, 40, 100)),
    "photos": (sample_photos, Counts(20, 10, 100)),
    "digits": (digits, Counts(40, 10, 70)),
}
"""Reader and sizes of each set; the first two need a path."""


def build_set(name: str, root: Path, path: Path | None = None, scale: float = 1.0) -> Path:
    """Write one of `SETS` as a folder; `scale` shrinks it."""
    read, full = SETS[name]
    counts = Counts(*(max(2, round(count * scale)) for count in full))
    if name == "cifar10":
        return write_set(root / name, read(path, counts), counts)
    return write_set(root / name, read(path) if name == "bccd" else read(), counts)
