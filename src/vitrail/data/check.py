"""Look at every image before a training does: `check_dataset`."""

from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np

from vitrail.data.bands import bands_of
from vitrail.data.dataset import ImageSet
from vitrail.data.datasets import Splits
from vitrail.data.duplicates import SMALLEST_SIDE, can_hash, equal_groups, linked, near_pairs, perceptual_hash
from vitrail.data.image_io import ANY, ImageDecodeError
from vitrail.data.index import SPLITS, DataProblem
from vitrail.data.parallel import in_parallel

_CHUNK = 64
_UNEVEN = 10
_DARK = 32
"""Brightest value of an image that is taken for dark; 12 bits in a 16-bit file reach 16."""


@dataclass(frozen=True)
class SplitReport:
    """Counts and sizes of a split; sides are those of the upright images, `(min, median, max)`."""

    images: int
    counts: dict[str, int]
    width: tuple[int, int, int] | None = None
    height: tuple[int, int, int] | None = None

    @property
    def imbalance(self) -> float:
        """Images of the largest class for each image of the smallest."""
        counts = [count for count in self.counts.values() if count]
        return max(counts) / min(counts) if counts else 1.0


@dataclass(frozen=True)
class Twins:
    """Images that show the same.

    Args:
        ids: their ids.
        splits: the splits that they lie in; more than one is leakage.
        labels: the names of their classes; more than one is a contradiction.
    """

    ids: list[str]
    splits: list[str]
    labels: list[str]

    @property
    def leaks(self) -> bool:
        """Whether a split knows an image of another one."""
        return len(self.splits) > 1


@dataclass
class CheckReport:
    """Report of a data set check.

    Args:
        name: the data set.
        classes: names of the classes.
        splits: counts and sizes of each split.
        bad: unusable files and rows, with the reason.
        equal: groups of images that are equal to the pixel.
        near: groups of near duplicates that are not equal; None if they were not searched.
        ignored: files that are no images, by ending.
        warnings: problems that do not prevent training.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, SplitReport] = field(default_factory=dict)
    bad: list[DataProblem] = field(default_factory=list)
    equal: list[Twins] = field(default_factory=list)
    near: list[Twins] | None = None
    ignored: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether a training could use every image."""
        return not self.bad

    @property
    def kinds(self) -> dict[str, int]:
        """Number of bad things of each kind."""
        return dict(Counter(problem.kind for problem in self.bad).most_common())

    def lines(self) -> list[str]:
        """Return the number of images of each split as lines of text."""
        return [f"{split}: {part.images:,} images" for split, part in self.splits.items()]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self) | {
            "ok": self.ok,
            "bad": [problem._asdict() for problem in self.bad],
            "kinds": self.kinds,
            "imbalance": {split: round(report.imbalance, 3) for split, report in self.splits.items()},
        }


class _Seen(NamedTuple):
    """Result of a worker for one image."""

    size: tuple[int, int]
    digest: bytes | None
    fingerprint: int | None
    fault: DataProblem | None
    peak: int = 255
    bands: int | None = None
    """Number of bands, if the file is not read as RGB."""


def check_dataset(data: Splits, *, decode: bool = True, workers: int | None = None) -> CheckReport:
    """Examine a data set; nothing that is found stops the check.

    Args:
        data: result of `open_dataset` with `bad="list"`; held-out val and test splits are checked for leakage like
            any other.
        decode: decode every image; False only counts.
        workers: number of processes; all cores by default.

    Example:
        >>> from vitrail.data.datasets import open_dataset
        >>> report = check_dataset(open_dataset("digits", bad="list"))
        >>> report.ok, report.splits["test"].images
        (True, 359)
    """
    report = CheckReport(data.name, data.classes, bad=list(data.problems), ignored=data.ignored)
    for split, images in data:
        report.splits[split] = SplitReport(len(images), images.counts())
    if decode:
        _examine(data, report, workers)
    report.warnings += data.warnings + _warnings(report)
    return report


def _examine(data: Splits, report: CheckReport, workers: int | None) -> None:
    """Decode every image, and note faults, sizes and twins."""
    seen: list[_Seen] = []
    where: list[tuple[str, ImageSet, int]] = []
    for split, images in data:
        chunks = [range(start, min(start + _CHUNK, len(images))) for start in range(0, len(images), _CHUNK)]
        here = [one for part in in_parallel(_Look(images), chunks, f"checking {images.name}", workers) for one in part]
        report.bad += [one.fault for one in here if one.fault]
        sizes = np.array([one.size for one in here if one.fault is None])
        if len(sizes):
            width, height = np.quantile(sizes, [0, 0.5, 1], axis=0, method="nearest").T.tolist()
            report.splits[split] = SplitReport(len(images), images.counts(), tuple(width), tuple(height))
        dark = [one.peak < _DARK for one in here if one.fault is None]
        if sum(dark) > len(dark) / 2:
            report.warnings.append(
                f"{split} is dark: {sum(dark)} of {len(dark)} images have no value above {_DARK} of 255, as 12-bit"
                " values in 16-bit files have; scale them"
            )
        seen += here
        where += [(split, images, number) for number in range(len(images))]
    report.warnings += _band_warnings(seen, [images.ids[number] for _, images, number in where])
    equal = equal_groups([one.digest for one in seen])
    report.equal = [_twins(group, where) for group in equal]
    if can_hash():
        report.near = [_twins(group, where) for group in _alike(seen)]
    else:
        report.warnings.append("near-duplicates were not searched: pip install imagehash")


class _Look:
    """Look at chunks of images; runs in worker processes."""

    def __init__(self, images: ImageSet) -> None:
        self.images, self.near = images, can_hash()

    def __call__(self, chunk: range) -> list[_Seen]:
        return [self._look(number) for number in chunk]

    def _look(self, number: int) -> _Seen:
        try:
            image = self.images.image(number, ANY)
        except ImageDecodeError as error:
            fault = DataProblem(self.images.ids[number], error.reason, error.kind)
            return _Seen((0, 0), None, None, fault)
        digest = sha256(repr(image.size).encode() + image.tobytes()).digest()
        peak = int(np.asarray(image).max())
        fingerprint = perceptual_hash(image) if self.near else None
        return _Seen(image.size, digest, fingerprint, None, peak, self._bands(number, image.mode))

    def _bands(self, number: int, mode: str) -> int | None:
        """Return the number of bands of an image that is not read as RGB, as grey with alpha is."""
        bands = bands_of(mode)
        if bands is not None:
            with suppress(ImageDecodeError):
                self.images.image(number)
                return None
        return bands


def _alike(seen: list[_Seen]) -> list[list[int]]:
    """Return groups of images that are alike; a group holds at least two that are not equal."""
    hashed = [(number, one.fingerprint) for number, one in enumerate(seen) if one.fingerprint is not None]
    if not hashed:
        return []
    words, owner = np.unique(np.array([word for _, word in hashed], dtype=np.uint64), return_inverse=True)
    members: list[list[int]] = [[] for _ in words]
    for (number, _), place in zip(hashed, owner.tolist(), strict=True):
        members[place].append(number)
    joined = linked(len(words), map(tuple, near_pairs(words).tolist()))
    alone = set(range(len(words))).difference(*joined)
    groups = [[number for place in group for number in members[place]] for group in joined]
    groups += [members[place] for place in sorted(alone)]
    return [sorted(group) for group in groups if len({seen[number].digest for number in group}) > 1]


def _twins(group: list[int], where: list[tuple[str, ImageSet, int]]) -> Twins:
    found = [where[place] for place in group]
    names = {images.classes[int(images.labels[number])] for _, images, number in found}
    ids = [images.ids[number] for _, images, number in found]
    splits = {split for split, _, _ in found}
    return Twins(ids, [split for split in SPLITS if split in splits], sorted(names))


def _groups(count: int) -> str:
    return "1 group" if count == 1 else f"{count} groups"


def _band_warnings(seen: list[_Seen], ids: list[str]) -> list[str]:
    """Return what a training needs for images of bands, and that it needs one number of them."""
    read = [(one.bands, name) for one, name in zip(seen, ids, strict=True) if one.fault is None]
    first = dict(reversed(read))
    counts = Counter(bands for bands, _ in read)
    numbers = [bands for bands in counts if bands is not None]
    if not numbers:
        return []
    if len(counts) == 1:
        return [f"all images have {numbers[0]} bands: train with --set in_channels={numbers[0]}"]
    told = [f"{counts[bands]:,} of {bands} bands (such as {first[bands]})" for bands in sorted(numbers)]
    told += [f"{counts[None]:,} read as RGB"] if None in counts else []
    return [f"images differ in bands: {', '.join(told)}; a training reads one number of them (--set in_channels=)"]


def _warnings(report: CheckReport) -> list[str]:
    warnings = []
    for what, groups in (("are equal", report.equal), ("look alike", report.near or [])):
        leaks = [group for group in groups if group.leaks]
        if leaks:
            across = Counter(" and ".join(group.splits) for group in leaks)
            told = ", ".join(f"{_groups(count)} in {splits}" for splits, count in across.most_common())
            warnings.append(f"leakage: images that {what} lie in more than one split: {told}")
    torn = [group for group in report.equal if len(group.labels) > 1]
    if torn:
        warnings.append(f"contradiction: equal images have different labels: {_groups(len(torn))}")
    sides = [part.width[1] for part in report.splits.values() if part.width]
    if sides and min(sides) < SMALLEST_SIDE:
        warnings.append(f"images under {SMALLEST_SIDE} pixels are too small to search for near-duplicates")
    for split, part in report.splits.items():
        missing = [name for name, count in part.counts.items() if not count]
        if missing:
            classes = "one class" if len(missing) == 1 else f"{len(missing)} classes"
            warnings.append(f"{split} has no images of {classes}: {', '.join(missing[:5])}")
        if part.imbalance >= _UNEVEN:
            warnings.append(f"{split} is uneven: its largest class is {part.imbalance:.0f} times its smallest")
    return warnings
