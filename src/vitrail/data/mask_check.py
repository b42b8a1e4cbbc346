"""Look at every image and mask before a training does: `check_masks`."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from vitrail.data.image_io import ImageDecodeError
from vitrail.data.index import DataProblem
from vitrail.data.label_map import USUAL_VOID
from vitrail.data.masks import VOID_NAMES, MaskSet, MaskSplits
from vitrail.data.parallel import in_parallel

_CHUNK = 16


@dataclass
class MaskReport:
    """Report of a data set with masks.

    Args:
        name: the data set.
        splits: number of samples of each split.
        bad: samples that cannot be used, with the reason.
        warnings: problems that do not prevent training.
        pixels: number of pixels of each class number in each split.
        names: class names by number, if a file has them.
    """

    name: str
    splits: dict[str, int] = field(default_factory=dict)
    bad: list[DataProblem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pixels: dict[str, dict[int, int]] = field(default_factory=dict)
    names: tuple[str, ...] | None = None

    @property
    def ok(self) -> bool:
        """Whether a training could use every sample."""
        return not self.bad

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        pixels = {split: {str(n): count for n, count in counts.items()} for split, counts in self.pixels.items()}
        return {
            "name": self.name,
            "ok": self.ok,
            "splits": self.splits,
            "classes": None if self.names is None else list(self.names),
            "pixels": pixels,
            "bad": [problem._asdict() for problem in self.bad],
            "kinds": dict(Counter(problem.kind for problem in self.bad).most_common()),
            "warnings": self.warnings,
        }

    def lines(self) -> list[str]:
        """Return the findings as lines of text."""
        found = [f"{split}: {count:,} images with masks" for split, count in self.splits.items()]
        for split, counts in self.pixels.items():
            total = max(sum(counts.values()), 1)
            shares = ", ".join(f"{self._label(n)} {count / total:.1%}" for n, count in sorted(counts.items()))
            found.append(f"{split} pixels: {shares}")
        return found

    def _label(self, number: int) -> str:
        named = self.names is not None and number < len(self.names)
        return self.names[number] if named and self.names is not None else str(number)


class _Seen(NamedTuple):
    """Pixels of each class number in a sample, and its fault."""

    counts: dict[int, int]
    fault: DataProblem | None


def check_masks(data: MaskSplits, workers: int | None = None) -> MaskReport:
    """Examine a data set with masks; nothing that is found stops the check.

    Found are: images without masks, two files of one stem, two folders of one split, files that do not decode, masks
    of another size than their image, orientation by EXIF of one of the two, colour masks, class numbers beyond the
    file of names, and masks without a labelled pixel.

    Args:
        data: result of `open_masks` with `bad="list"`.
        workers: number of processes; all cores by default.
    """
    report = MaskReport(data.name, names=data.names, bad=[p for p in data.problems if p.kind != "no image"])
    lonely = [problem for problem in data.problems if problem.kind == "no image"]
    if lonely:
        report.warnings.append(f"{len(lonely)} masks have no image, first {lonely[0].id}")
    void = {USUAL_VOID, *(i for i, name in enumerate(data.names or ()) if name.lower() in VOID_NAMES)}
    for split, samples in data:
        chunks = [range(i, min(i + _CHUNK, len(samples))) for i in range(0, len(samples), _CHUNK)]
        look = _LookAtMasks(samples, void, None if data.names is None else len(data.names))
        counts: Counter[int] = Counter()
        for part in in_parallel(look, chunks, f"checking {samples.name}", workers):
            for seen in part:
                counts.update(seen.counts)
                report.bad += [seen.fault] if seen.fault else []
        report.splits[split], report.pixels[split] = len(samples), dict(counts)
    report.warnings += _class_warnings(report, void)
    return report


class _LookAtMasks:
    """Look at chunks of samples; runs in worker processes."""

    def __init__(self, samples: MaskSet, void: set[int], classes: int | None) -> None:
        self.samples, self.void, self.classes = samples, void, classes

    def __call__(self, chunk: range) -> list[_Seen]:
        return [self._look(number) for number in chunk]

    def _look(self, number: int) -> _Seen:
        name = self.samples.ids[number]
        try:
            _, mask = self.samples.pair(number)
        except ImageDecodeError as error:
            return _Seen({}, DataProblem(name, error.reason, error.kind))
        numbers, counts = np.unique(mask, return_counts=True)
        found = {int(n): int(count) for n, count in zip(numbers, counts, strict=True)}
        beyond = [
            n for n in found if n not in self.void and (n < 0 or (self.classes is not None and n >= self.classes))
        ]
        if beyond:
            shown = ", ".join(map(str, beyond[:5]))
            reason = f"class number {shown}, and the file of names has {self.classes} lines"
            return _Seen(found, DataProblem(name, reason, "class number"))
        if not found.keys() - self.void:
            return _Seen(found, DataProblem(name, "no pixel of the mask is labelled", "empty mask"))
        return _Seen(found, None)


def _class_warnings(report: MaskReport, void: set[int]) -> list[str]:
    """Return warnings about gaps in the numbers, and classes that a split lacks."""
    warnings = []
    train = set(report.pixels.get("train", {})) - void
    if report.names is None and train and train != set(range(max(train) + 1)):
        shown = ", ".join(map(str, sorted(train)[:12]))
        warnings.append(f"the numbers of the classes have gaps ({shown}): give a file of names, FOLDER@NAMES.txt")
    for split, counts in report.pixels.items():
        unseen = sorted(set(counts) - void - train)
        if split != "train" and train and unseen:
            warnings.append(f"{split} has classes that train lacks: {', '.join(map(str, unseen[:8]))}")
    return warnings
