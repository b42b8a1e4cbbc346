"""`vitrail data`: check a data set before training, or write it in another layout."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from vitrail.errors import VitrailError
from vitrail.tasks import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vitrail.data.check import CheckReport, Twins

EXAMPLES = """
    vitrail data check digits
    vitrail data check photos/                 # class/*.jpg, or train/class/*.jpg beside val/ and test/
    vitrail data check labels.csv --label-column species --all
    vitrail data check cifar10.tar.gz --json > report.json
    vitrail data info torchvision:CIFAR10@data
    vitrail data check camvid/ --task segment    # images and masks
    vitrail data convert bccd/ --task detect --to yolo --out bccd-yolo
"""


@dataclass(frozen=True)
class Data:
    """Check a data set: every bad file with its reason, class counts, sizes, duplicates, leakage between splits.

    Exit code 0 when every image can be used, 3 when something is bad.
    """

    action: Positional[Literal["check", "info", "convert"]]
    """check decodes every image; info only lists and counts; convert writes another layout and reads it back."""
    data: Positional[str]
    """digits, a folder, a .csv or .jsonl table, a .tar.gz, or torchvision:NAME@FOLDER; what else the task reads."""
    task: str = DEFAULT
    """Task that the data is for."""
    val_share: float = 0.1
    """Share of the training images held out for val, if the data set has no val split."""
    test_share: float = 0.0
    """The same for test."""
    image_column: str | None = None
    """Column of a table that holds the path of the image; common names are found by default."""
    label_column: str | None = None
    """Column of a table that holds the class."""
    split_column: str | None = None
    """Column of a table that holds train, val or test."""
    download: bool = False
    """Let torchvision download the data set."""
    to: str = ""
    """Layout to convert to; task detect: coco, voc or yolo."""
    out: str = ""
    """New folder of the converted data."""
    copy: bool = False
    """Copy images into it; without it they are hard links where that is possible."""
    workers: int | None = None
    """Processes that read images; all cores by default."""
    strict: bool = False
    """Exit with 3 for warnings too: duplicates across splits, contradicting labels, uneven classes."""
    all: bool = False
    """Print every finding; without it each list ends after 20."""
    json: bool = False
    """Print the whole report as JSON."""

    def run(self) -> int:
        """Check, print, and return the exit code."""
        from time import perf_counter

        from vitrail.data.check import check_dataset
        from vitrail.data.datasets import open_dataset
        from vitrail.data.table import Columns

        start = perf_counter()
        if self.action == "convert":
            return self._convert()
        if self.to or self.out:
            raise VitrailError(f"--to and --out belong to `vitrail data convert`, not to `vitrail data {self.action}`.")
        if self.task != DEFAULT:
            return self._check_for_task()
        data = open_dataset(
            self.data,
            val_share=self.val_share,
            test_share=self.test_share,
            columns=Columns(self.image_column, self.label_column, self.split_column),
            download=self.download,
            bad="list",
        )
        report = check_dataset(data, decode=self.action == "check", workers=self.workers)
        seconds = perf_counter() - start
        if self.json:
            import json

            print(json.dumps(report.to_dict() | {"seconds": round(seconds, 3)}, indent=2))
        else:
            self._print(report, seconds)
        return 0 if report.ok and not (self.strict and report.warnings) else 3

    def _convert(self) -> int:
        """Write the data in another layout."""
        from pathlib import Path

        from vitrail.tasks import TASKS, find_task

        convert = getattr(find_task(self.task), "convert", None)
        if convert is None:
            able = ", ".join(name for name in TASKS if hasattr(find_task(name), "convert"))
            raise VitrailError(f"Data of the task {self.task} has one layout only. Tasks with several: --task {able}.")
        if not self.to or not self.out:
            raise VitrailError("Give the layout and a new folder: --to LAYOUT --out FOLDER.")
        for line in convert(self.data, self.to, Path(self.out), self.copy).lines():
            print(line)
        print(f"written: {self.out}")
        return 0

    def _check_for_task(self) -> int:
        """Check the data of another task: its own findings, bad samples and warnings."""
        from rich.console import Console

        from vitrail.tasks import find_task

        report = find_task(self.task).check(self.data, self.val_share)
        if self.json:
            import json

            print(json.dumps(report.to_dict(), indent=2))
        else:
            console = Console(highlight=False, soft_wrap=True, markup=False)
            for line in report.lines():
                console.print(line)
            if report.bad:
                most = len(report.bad) if self.all else 20
                _print_list(console, f"Bad: {len(report.bad)}", [str(each) for each in report.bad], most)
            for warning in report.warnings:
                console.print(f"warning: {warning}", style="yellow")
            console.print(f"\n{_verdict(report.bad)}.", style="bold red" if report.bad else "bold green")
        return 3 if report.bad or (self.strict and report.warnings) else 0

    def _print(self, report: "CheckReport", seconds: float) -> None:
        from rich.console import Console

        most = len(report.bad) + len(report.equal) + len(report.near or []) if self.all else 20
        console = Console(highlight=False, soft_wrap=True, markup=False)
        if report.splits:
            _print_splits(console, report, most)
        if report.bad:
            kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.items())
            _print_list(console, f"Bad: {len(report.bad)} ({kinds})", [str(problem) for problem in report.bad], most)
        _print_twins(console, "Equal images", report.equal, most)
        _print_twins(console, "Images that look alike", report.near or [], most)
        if report.ignored:
            listed = ", ".join(f"{count} {what}" for what, count in list(report.ignored.items())[:8])
            console.print(f"\nIgnored files: {listed}")
        for warning in report.warnings:
            console.print(f"warning: {warning}", style="yellow")
        images = sum(part.images for part in report.splits.values())
        done = "listed" if self.action == "info" else "checked"
        verdict = "" if report.ok and self.action == "info" else f": {_verdict(report.bad)}"
        console.print(
            f"\n{images:,} images {done} in {seconds:.1f} s{verdict}.",
            style="bold green" if report.ok else "bold red",
        )


def _verdict(bad: "Sequence[object]") -> str:
    """Return what can be used, for findings that are files, rows, or faults of the whole data set.

    Example:
        >>> _verdict([]), _verdict(["a.jpg: the file is empty"])
        ('everything can be used', '1 cannot be used')
    """
    files = [one for one in bad if not getattr(one, "is_general", False)]
    found = [f"{len(files)} cannot be used"] if files else []
    found += ["the data set cannot be used as it is"] if len(files) < len(bad) else []
    return ", and ".join(found) or "everything can be used"


def _print_splits(console, report: "CheckReport", most: int) -> None:
    from rich import box
    from rich.table import Table

    classes_found = "1 class" if len(report.classes) == 1 else f"{len(report.classes)} classes"
    table = Table(title=f"{report.name}: {classes_found}", title_justify="left", box=box.SIMPLE_HEAD)
    sized = any(part.width for part in report.splits.values())  # `info` reads no image
    for heading in ("split", "images", "each class", *(["width", "height"] if sized else [])):
        table.add_column(heading, justify="left" if heading == "split" else "right", overflow="fold")
    for split, part in report.splits.items():
        low, high = min(part.counts.values()), max(part.counts.values())
        each = f"{low:,}" if low == high else f"{low:,} - {high:,}"
        sides = [_range(part.width), _range(part.height)] if sized else []
        table.add_row(split, f"{part.images:,}", each, *sides)
    console.print(table)
    classes = Table(box=box.SIMPLE_HEAD)
    classes.add_column("class")
    for split in report.splits:
        classes.add_column(split, justify="right")
    for name in report.classes[:most]:
        classes.add_row(name, *(f"{part.counts[name]:,}" for part in report.splits.values()))
    if len(report.classes) > most:
        classes.add_row(f"and {len(report.classes) - most} more (--all)")
    if report.classes:
        console.print(classes)


def _range(sides: tuple[int, int, int] | None) -> str:
    if sides is None:
        return "-"
    return str(sides[0]) if sides[0] == sides[2] else f"{sides[0]} - {sides[2]}, median {sides[1]}"


def _print_twins(console, title: str, groups: "list[Twins]", most: int) -> None:
    def told(group: "Twins") -> str:
        ids = ", ".join(group.ids[:4]) + (f" and {len(group.ids) - 4} more" if len(group.ids) > 4 else "")
        marks = [f"across {' and '.join(group.splits)}"] * group.leaks
        marks += [f"labels {', '.join(group.labels)}"] * (len(group.labels) > 1)
        return ids + (f"  ({'; '.join(marks)})" if marks else "")

    if groups:
        first = sorted(groups, key=lambda group: not group.leaks)
        groups_found = "1 group" if len(groups) == 1 else f"{len(groups)} groups"
        _print_list(console, f"{title}: {groups_found}", [told(group) for group in first], most)


def _print_list(console, title: str, lines: list[str], most: int) -> None:
    console.print(f"\n{title}", style="bold")
    for line in lines[:most]:
        console.print(f"  {line}")
    if len(lines) > most:
        console.print(f"  and {len(lines) - most} more (--all)")
