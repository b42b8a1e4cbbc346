"""Image sets for restoration: folders of high-quality images, perhaps with the degraded ones.

| folder | meaning |
|---|---|
| `*.png` | high-quality images; the degraded ones are made on the fly |
| `HR/*.png` and `LR/*.png`, or `LR_bicubic/X2/*x2.png` (as DIV2K and Set5 come) | pairs, matched by name |
| `train/`, `val/`, `test/` | splits, each one of the above |
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitrail.data.holdout import hold_out_names
from vitrail.data.image_io import EXTENSIONS, ImageDecodeError, open_image, read_size
from vitrail.data.index import SPLIT_NAMES, SPLITS, DataProblem
from vitrail.data.prefetch import prefetch_map
from vitrail.errors import DataError, VitrailError

CACHE_BYTES = 1 << 30
"""Decoded images of a set are kept in memory up to this size."""


class RestorationSet:
    """High-quality images, perhaps paired with degraded ones.

    Args:
        name: the set, for display.
        files: the high-quality images.
        lows: folder of the degraded images, or None if they are made on the fly.
    """

    def __init__(self, name: str, files: Sequence[Path], lows: Path | None = None):
        self.name, self.files, self.lows = name, list(files), lows
        self.ids = [file.name for file in self.files]
        self._cache: dict[tuple[Path, int], np.ndarray] = {}
        self._room = CACHE_BYTES

    def __len__(self) -> int:
        return len(self.files)

    def take(self, chosen: Sequence[int], name: str | None = None) -> "RestorationSet":
        """Return some of the images as a set."""
        return RestorationSet(name or self.name, [self.files[number] for number in chosen], self.lows)

    def high(self, number: int, channels: int) -> np.ndarray:
        """Return a high-quality image, `(Y, X, C)` of uint8."""
        return self._read(self.files[number], channels)

    def low_file(self, number: int, scale: int) -> Path | None:
        """Return the degraded image of a high-quality one, or None if degraded images are made on the fly.

        Raises:
            DataError: the set has degraded images, but not this one.
        """
        if self.lows is None:
            return None
        stem = self.files[number].stem
        for folder in (self.lows / f"X{scale}", self.lows / f"x{scale}", self.lows):
            for name in (f"{stem}x{scale}", stem):
                found = [folder / f"{name}{ending}" for ending in (self.files[number].suffix, *sorted(EXTENSIONS))]
                for file in found:
                    if file.is_file():
                        return file
        raise DataError(f"{self.lows} has no image {stem}x{scale} or {stem}, which {self.files[number]} needs.")

    def low(self, number: int, scale: int, channels: int) -> np.ndarray | None:
        """Return the degraded image, `(Y, X, C)` of uint8, or None if it is made on the fly."""
        file = self.low_file(number, scale)
        return None if file is None else self._read(file, channels)

    def _read(self, file: Path, channels: int) -> np.ndarray:
        held = self._cache.get((file, channels))
        if held is not None:
            return held
        pixels = np.asarray(open_image(file, "L" if channels == 1 else "RGB"))
        pixels = pixels.reshape(*pixels.shape[:2], channels)
        if pixels.nbytes <= self._room:
            self._cache[file, channels] = pixels
            self._room -= pixels.nbytes
        return pixels


@dataclass
class RestorationSplits:
    """Image sets by split, and the faults of their files.

    Args:
        name: the data, for display.
        sets: the set of each split.
        skipped: files that were left out, under `bad="skip"`.
    """

    name: str
    sets: dict[str, RestorationSet]
    skipped: list[DataProblem] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[str, RestorationSet]]:
        return iter(self.sets.items())

    def require(self, split: str) -> RestorationSet:
        """Return a split; the error names those that exist."""
        if split not in self.sets:
            there = ", ".join(self.sets) or "none"
            raise DataError(
                f"{self.name} has no images for {split}; its splits: {there}.\n"
                f"Add a folder called {split}, or evaluate on another split (--split all for a folder without splits)."
            )
        return self.sets[split]


def open_restoration(spec: str, val_share: float, bad: str = "list") -> RestorationSplits:
    """Open a folder of images by split.

    Args:
        spec: the folder; see the module.
        val_share: share of the training images to hold out if there is no validation split; 0 holds out none.
        bad: `fail` decodes every image and lists those that cannot be read; `skip` leaves them out; `list` decodes
            none.

    Raises:
        VitrailError: there is no such folder.
        DataError: there are no images, or some cannot be read.
    """
    root = Path(spec)
    if not root.is_dir():
        raise VitrailError(f"There is no folder '{spec}' (looked from {os.getcwd()}). Give a folder of images.")
    named = {
        SPLIT_NAMES[each.name.lower()]: each for each in sorted(root.iterdir()) if each.name.lower() in SPLIT_NAMES
    }
    found = {split: _open_set(named[split], f"{root.name} {split}") for split in SPLITS if split in named}
    splits = RestorationSplits(root.name, found or {"train": _open_set(root, root.name)})
    if bad in ("fail", "skip"):
        _examine(splits, bad)
    if "val" not in splits.sets and "train" in splits.sets and val_share > 0:
        whole = splits.sets["train"]
        kept, held = hold_out_names(whole.ids, val_share, "val")
        if held:
            splits.sets |= {
                "train": whole.take(kept, f"{root.name} train"),
                "val": whole.take(held, f"{root.name} val"),
            }
    return splits


def _open_set(folder: Path, name: str) -> RestorationSet:
    children = {each.name.lower(): each for each in sorted(folder.iterdir()) if each.is_dir()}
    highs = next((children[key] for key in ("hr", "gt", "high", "target") if key in children), None)
    lows = next((children[key] for key in ("lr", "lr_bicubic", "lq", "low", "input") if key in children), None)
    if lows is not None and highs is None:
        raise DataError(f"{folder} has degraded images in {lows.name} and no folder HR of the true ones.")
    place = highs or folder
    files = sorted(
        Path(top) / file
        for top, _, names in os.walk(place)
        for file in names
        if Path(file).suffix.lower() in EXTENSIONS and not file.startswith(".")
    )
    if not files:
        raise DataError(f"The folder {place} holds no images. Endings that are taken: {' '.join(sorted(EXTENSIONS))}")
    return RestorationSet(name, files, lows)


def unreadable(images: RestorationSet) -> list[DataProblem]:
    """Decode every high-quality image of a set, and return those that cannot be read."""

    def look(number: int) -> DataProblem | None:
        try:
            open_image(images.files[number], "RGB")
        except ImageDecodeError as error:
            return DataProblem(str(images.files[number]), error.reason, error.kind)
        return None

    return [fault for fault in prefetch_map(look, range(len(images)), window=8) if fault is not None]


def _examine(splits: RestorationSplits, bad: str) -> None:
    """Decode all images; raise, or leave out those that cannot be read."""
    faults = [fault for _, images in splits for fault in unreadable(images)]
    if not faults:
        return
    if bad == "fail":
        raise listed(f"{len(faults)} images of {splits.name} cannot be read", faults)
    left = {fault.id for fault in faults}
    splits.skipped = faults
    for split, images in list(splits):
        kept = [number for number, file in enumerate(images.files) if str(file) not in left]
        if not kept:
            raise listed(f"Not one image of {images.name} can be read", faults)
        splits.sets[split] = images.take(kept)


def pair_faults(images: RestorationSet, scale: int, patch: int = 1) -> list[DataProblem]:
    """Return images without a degraded partner, pairs whose sizes do not fit, and images smaller than a patch.

    The true image may be larger than `scale` times the degraded one by less than `scale` pixels; it is then cropped.

    Args:
        images: the set.
        scale: pixels of the true image for one of the degraded image, on each axis.
        patch: side of a training patch of the degraded image.
    """
    faults = []
    for number, file in enumerate(images.files):
        try:
            width, height = read_size(file)
            low = images.low_file(number, scale)
            small = (width // scale, height // scale) if low is None else read_size(low)
        except DataError as error:
            faults.append(DataProblem(str(file), str(error), "pair"))
            continue
        slack = (width - small[0] * scale, height - small[1] * scale)
        if not all(0 <= each < scale for each in slack):
            reason = f"{width} x {height} is not {scale} times {small[0]} x {small[1]}, the size of {low}"
            faults.append(DataProblem(str(file), reason, "size"))
        elif min(small) < patch:
            reason = f"{width} x {height} is smaller than a patch of {patch * scale} x {patch * scale}"
            faults.append(DataProblem(str(file), reason, "size"))
    return faults


def listed(title: str, faults: Sequence[DataProblem]) -> DataError:
    """Return an error that lists faults."""
    lines = [f"  {fault}" for fault in faults[:4]] + ([f"  and {len(faults) - 4} more"] if len(faults) > 4 else [])
    return DataError("\n".join([f"{title}:", *lines]) + "\nMend or remove them, or leave them out: --bad skip.")
