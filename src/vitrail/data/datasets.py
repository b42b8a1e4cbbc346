"""Open any kind of data set: `open_dataset`."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vitrail.data.archive import list_archive
from vitrail.data.dataset import ImageSet
from vitrail.data.digits import digits
from vitrail.data.folder import list_folder
from vitrail.data.holdout import hold_out
from vitrail.data.image_io import printable
from vitrail.data.index import SPLITS, DataProblem, DatasetIndex, Split, problem_notes
from vitrail.data.packed import pack
from vitrail.data.table import SUFFIXES, Columns, find_metadata, list_metadata, list_table
from vitrail.data.torchvision_datasets import PREFIX, open_torchvision
from vitrail.errors import DataError, VitrailError, nearest

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

KINDS = f"""digits                    handwriting that is installed already (1,797 images, 10 classes)
FOLDER                    class/*.jpg, train/class/*.jpg beside val/ and test/, or with a metadata.csv or .jsonl
TABLE.csv, TABLE.jsonl    columns path and label, perhaps split
ARCHIVE.tar.gz            a tar of such a folder, read in place
{PREFIX}CIFAR10@FOLDER   a data set of torchvision"""
"""What `open_dataset` understands, for help texts."""


@dataclass
class Splits:
    """A data set: its images by split, and its problems.

    Args:
        name: the data set, for display.
        classes: names of the classes, in the order of the labels.
        train: training images.
        val: validation images.
        test: test images.
        problems: unusable files and rows; only with `bad="list"`.
        ignored: number of files that are no images, by ending.
        skipped: images left out under `bad="skip"`.
        warnings: doubts about the layout.
    """

    name: str
    classes: tuple[str, ...]
    train: ImageSet | None = None
    val: ImageSet | None = None
    test: ImageSet | None = None
    problems: list[DataProblem] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)
    skipped: list[DataProblem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Return sentences about what was left out, and warnings."""
        ignored = ", ".join(f"{count} {what}" for what, count in list(self.ignored.items())[:4])
        notes = [f"Left out of {self.name}: {ignored}."] if ignored else []
        return [*notes, *problem_notes(self.skipped, "image"), *(f"warning: {text}." for text in self.warnings)]

    def __iter__(self) -> Iterator[tuple[Split, ImageSet]]:
        """Iterate over the splits that exist."""
        for split in SPLITS:
            images = getattr(self, split)
            if images is not None:
                yield split, images

    def require(self, split: Split) -> ImageSet:
        """Return a split; the error names the existing ones."""
        images = dict(self).get(split)
        if images is None:
            there = ", ".join(name for name, _ in self) or "none"
            how = "set val_share above 0" if split == "val" else f"add a folder (or rows) called {split}"
            other = f", or take another: --split {there.rpartition(', ')[2]}" if split == "test" else ""
            raise DataError(f"{self.name} has no images for {split}; its splits: {there}.\nTo get one, {how}{other}.")
        return images


def open_dataset(
    spec: str | Path,
    *,
    val_share: float = 0.1,
    test_share: float = 0.0,
    classes: Sequence[str] | None = None,
    columns: Columns | None = None,
    download: bool = False,
    bad: Literal["fail", "skip", "list"] = "fail",
    packed: bool = True,
) -> Splits:
    """Open a data set of any kind.

    If the data set has no val (test) split, a share of the training images is held out: in each class, those
    whose ids have the least hashes. A split that is there is never touched.

    Args:
        spec: `digits`, a folder, a table, a tar, or `torchvision:NAME@FOLDER`; see `KINDS`.
        val_share: share of the training images held out for val if there is no val split; 0 for no val split.
        test_share: the same for test.
        classes: names of the classes, in order, if a model has them already; labels may be names or numbers.
        columns: names of the columns of a table.
        download: let torchvision download.
        bad: policy for unusable data. `fail` raises and names it; `skip` drops images that do not decode and counts
            them (in `Splits.skipped` or `Loader.skipped`); `list` decodes nothing, raises nothing and records the
            problems in `Splits.problems`, for `check_dataset`.
        packed: decode small images of one size (CIFAR) once, into an array in the cache.

    Raises:
        VitrailError: no such data.
        DataError: data that cannot be used; the message names the first few faults.

    Example:
        >>> data = open_dataset("digits")
        >>> [(split, len(images)) for split, images in data]
        [('train', 1259), ('val', 179), ('test', 359)]
    """
    data = _find(str(spec), classes, columns or Columns(), download)
    if bad == "list":
        try:
            return _hold_out(data, val_share, test_share)
        except VitrailError as error:
            data.problems.append(DataProblem(data.name, str(error).replace("\n", " "), "classes"))
            return data
    if data.problems:
        raise _refusal(data, str(spec), classes is not None)
    if packed:
        for split, images in list(data):
            kept, skipped = pack(images, bad)
            data.skipped += skipped
            setattr(data, split, kept)
    return _hold_out(data, val_share, test_share)


def _find(spec: str, classes: Sequence[str] | None, columns: Columns, download: bool) -> Splits:
    """List a data set with everything that is wrong with it, and decode nothing."""
    wanted = tuple(classes) if classes is not None else None
    if spec == "digits" or spec.startswith(PREFIX):
        found, listing = digits() if spec == "digits" else open_torchvision(spec, download), DatasetIndex(spec)
        names = next(iter(found.values())).classes
        if wanted is not None and wanted != names:
            raise DataError(f"The classes of {spec} are {_few(names)}; the model has {len(wanted)}: {_few(wanted)}.")
    else:
        listing = _list(Path(spec).expanduser(), columns)
        found = listing.sets(wanted)
        names = next((images.classes for images in found.values()), wanted or ())
    if not found and not listing.problems:
        listing.problems.append(DataProblem(listing.name, _nothing(listing), "no images"))
    data = Splits(listing.name, names, problems=listing.problems, ignored=dict(listing.ignored))
    data.warnings = listing.warnings
    for split, images in found.items():
        setattr(data, split, images)
    if data.train is not None and len(names) == 1:
        data.problems.append(DataProblem(data.name, f"there is only one class ({names[0]}); two are needed", "classes"))
    return data


def _hold_out(data: Splits, val_share: float, test_share: float) -> Splits:
    """Give a data set the splits that it does not bring."""
    if data.train is not None and data.test is None and test_share:
        data.train, data.test = hold_out(data.train, test_share, "test")
    if data.train is not None and data.val is None and val_share:
        data.train, data.val = hold_out(data.train, val_share, "val")
    return data


def _list(path: Path, columns: Columns) -> DatasetIndex:
    if path.is_dir():
        tables = find_metadata(path)
        return list_metadata(path, tables, columns) if tables else list_folder(path)
    if path.is_file() and path.name.lower().endswith(TAR_SUFFIXES):
        return list_archive(path)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return list_table(path, columns)
    if path.exists():
        raise VitrailError(f"{printable(path)} is no kind of data set. Give one of:\n{KINDS}"[:2000])
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    guess = nearest(path.name, [*beside, "digits"])
    raise VitrailError(
        f"There is no data at {printable(path)}." + (f" Did you mean: {printable(', '.join(guess))}?" if guess else "")
        + "\nData is a folder of images, a table (.csv, .jsonl), a .tar.gz, digits, or torchvision:NAME@FOLDER."
    )  # fmt: skip


def _nothing(listing: DatasetIndex) -> str:
    ignored = ", ".join(f"{count} {what}" for what, count in listing.ignored.most_common(3))
    return "no images in folders of classes (class/*.jpg or train/class/*.jpg)" + (ignored and f"; found {ignored}")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _refusal(data: Splits, spec: str, classes_given: bool) -> DataError:
    see = f"vitrail data check {printable(shlex.quote(spec))}"
    if len(data.problems) == 1 and data.problems[0].kind != "label":
        return DataError(f"{data.problems[0]}.\nSee everything: {see}")
    lines = [f"  {problem}" for problem in data.problems[:3]]
    more = f"  and {len(data.problems) - 3} more" if len(data.problems) > 3 else ""
    count = "1 problem" if len(data.problems) == 1 else f"{len(data.problems)} problems"
    head = f"{data.name} cannot be used as it is ({count}):"
    last = f"See all of them: {see}"
    if all(problem.kind == "label" for problem in data.problems):  # the list would add nothing
        cure = "remove these images" if classes_given else "add images of the class to train, or remove these"
        known = "the model was not trained on it" if classes_given else "it has no training images"
        last = f"A class that is evaluated but not learnt is always wrong ({known}): {cure}."
    return DataError("\n".join([head, *lines, *filter(None, [more]), last]))
