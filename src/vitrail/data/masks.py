"""Images with masks of class numbers, for semantic segmentation: `open_masks`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from vitrail.data.image_io import EXTENSIONS, ImageDecodeError, open_image, printable, read_orientation, read_size
from vitrail.data.index import SPLIT_NAMES, SPLITS, DataProblem, Split
from vitrail.data.mask_io import open_mask
from vitrail.data.text_lines import read_class_lines
from vitrail.errors import DataError, VitrailError

NAMES_FILE = "classes.txt"
VOID_NAMES = frozenset(["void", "ignore", "unlabelled", "unlabeled"])

KINDS = f"""FOLDER                 train/ and trainannot/, val/ and valannot/, ...: images and masks of the same stems
                       images/ and masks/, perhaps with train/, val/, test/ inside; or train/images/ and train/masks/
FOLDER@NAMES.txt       the same with a file of class names, one a line in the order of the numbers ({NAMES_FILE} in the
                       folder is found by itself); lines void, ignore or unlabelled are numbers that never count"""
"""Layouts of a data set with masks, for help texts."""


class MaskSet:
    """Images with masks of class numbers as they are stored.

    Args:
        name: name of the set in messages.
        ids: path of each image inside the data set.
        images: file of each image.
        masks: file of each mask.
        skipped: files of its folders that have no partner or share their stem, and are no samples.
    """

    def __init__(
        self, name: str, ids: Sequence[str], images: Sequence[Path], masks: Sequence[Path], skipped: Sequence[str] = ()
    ) -> None:
        self.name, self.ids, self.images, self.masks = name, tuple(ids), tuple(images), tuple(masks)
        self.skipped = tuple(skipped)

    def __len__(self) -> int:
        return len(self.ids)

    def mask(self, number: int) -> np.ndarray:
        """Return the class numbers `(Y, X)` as stored."""
        return open_mask(self.masks[number])

    def pair(self, number: int, mode: str = "RGB") -> tuple[Image.Image, np.ndarray]:
        """Return image and mask.

        Raises:
            ImageDecodeError: one of them cannot be read, or their sizes differ.
        """
        image, mask = open_image(self.images[number], mode), self.mask(number)
        if image.size != mask.shape[::-1]:
            name = printable(self.ids[number])
            wide, tall = mask.shape[::-1]
            reason = f"the image is {image.width} x {image.height} pixels upright and its mask {wide} x {tall}"
            raise ImageDecodeError(name, reason, "mask size")
        self._check_orientation(number)
        return image, mask

    def _check_orientation(self, number: int) -> None:
        """Refuse an image that EXIF turns without changing its size while its mask stays as it is."""
        turned, along = read_orientation(self.images[number]), read_orientation(self.masks[number])
        square = len({*read_size(self.images[number])}) == 1
        if turned not in (1, along) and (turned in (2, 3, 4) or square or along != 1):
            name = printable(self.ids[number])
            reason = f"EXIF turns the image (orientation {turned}), and its mask has orientation {along}"
            raise ImageDecodeError(name, f"{reason}; write the image upright", "orientation")

    def take(self, chosen: Sequence[int], name: str) -> "MaskSet":
        """Return some of the samples as a set of its own; what was skipped stays with it."""
        ids, images = [self.ids[i] for i in chosen], [self.images[i] for i in chosen]
        return MaskSet(name, ids, images, [self.masks[i] for i in chosen], self.skipped)


@dataclass
class MaskSplits:
    """A data set with masks: its samples by split, and its problems.

    Args:
        name: the data set, for display.
        names: class names by number, or None if no file has them.
        sets: samples of each split.
        problems: images without a mask, masks without an image, and files or folders that are there twice.
    """

    name: str
    names: tuple[str, ...] | None = None
    sets: dict[Split, MaskSet] = field(default_factory=dict)
    problems: list[DataProblem] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[Split, MaskSet]]:
        """Iterate over the splits that exist."""
        return ((split, self.sets[split]) for split in SPLITS if split in self.sets)

    @property
    def skipped(self) -> list[DataProblem]:
        """Images and masks without a partner, which are in no split."""
        return self.problems

    def notes(self) -> list[str]:
        """Return a sentence about what was left out."""
        count = len(self.problems)
        told = f"{count:,} images or masks have no partner and are left out"
        return [f"{told}, first {self.problems[0]}."] if count else []

    def require(self, split: Split) -> MaskSet:
        """Return a split; the error names the existing ones."""
        if split not in self.sets:
            there = ", ".join(self.sets) or "none"
            raise DataError(f"{self.name} has no images with masks for {split}; its splits: {there}.")
        return self.sets[split]


def open_masks(spec: str, *, val_share: float = 0.1, bad: Literal["fail", "skip", "list"] = "fail") -> MaskSplits:
    """List a data set of images with masks; no pixel is read.

    A share of the training images is held out if there is no val split: those whose ids have the least hashes.

    Args:
        spec: a folder, or `FOLDER@NAMES.txt`; see `KINDS`.
        val_share: share held out for val if there is no such split; 0 for none.
        bad: `fail` raises for samples without a partner or of one stem, the others record or drop them.

    Raises:
        VitrailError: no such folder.
        DataError: no pairs in it, images without masks, or two files of one stem.
    """
    text, _, given = spec.rpartition("@") if "@" in spec and not Path(spec).exists() else (spec, "", "")
    root = Path(text).expanduser()
    if not root.is_dir():
        raise VitrailError(f"There is no folder with images and masks at {printable(text)}. Data is one of:\n{KINDS}")
    data = MaskSplits(root.name, read_class_names(Path(given) if given else root / NAMES_FILE, required=bool(given)))
    folders: dict[Split, Path] = {}
    for split, images, masks in find_folders(root):
        if folders.setdefault(split, images) == images:
            _pair(data, root, split, images, masks)
        else:
            reason = f"{folders[split].relative_to(root)}/ has images of {split} too; put all of them into one folder"
            data.problems.append(DataProblem(f"{images.relative_to(root)}/", reason, "twice"))
    if not data.sets and not data.problems:
        data.problems.append(
            DataProblem(data.name, f"no folders of images and masks. Data is one of:\n{KINDS}", "none")
        )
    if bad != "list" and (not data.sets or (bad == "fail" and data.problems)):
        first = "\n".join(f"  {problem}" for problem in data.problems[:3])
        cure = "\nMend or remove them, or leave them out: --bad skip." if data.sets else ""
        raise DataError(f"{data.name} cannot be used as it is ({len(data.problems)} problems):\n{first}{cure}")
    if "train" in data.sets and "val" not in data.sets and val_share:
        _hold_out(data, val_share)
    return data


def find_folders(root: Path) -> list[tuple[Split, Path, Path]]:
    """Return split, folder of images and folder of masks, for each pair of folders in one of the known layouts."""
    found: list[tuple[Split, Path, Path]] = []
    for name, split in SPLIT_NAMES.items():
        pairs = [
            (root / name, root / f"{name}annot"),
            (root / "images" / name, root / "masks" / name),
            (root / name / "images", root / name / "masks"),
        ]
        for images, masks in pairs:
            if images.is_dir() and masks.is_dir():
                found.append((split, images, masks))
    if not found and (root / "images").is_dir() and (root / "masks").is_dir():
        found.append(("train", root / "images", root / "masks"))
    return found


def read_class_names(path: Path, required: bool = False) -> tuple[str, ...] | None:
    """Read class names, one a line in the order of the numbers; None if there is no such file.

    Raises:
        VitrailError: the file is required and absent, or names a class twice.
        DataError: a line before the last name is empty.
    """
    if not path.is_file():
        if required:
            raise VitrailError(f"There is no file of class names at {printable(path)}.")
        return None
    names = tuple(read_class_lines(path))
    twice = {name for name in names if names.count(name) > 1 and name.lower() not in VOID_NAMES}
    if twice:
        raise VitrailError(f"{printable(path)} names {sorted(twice)[0]!r} twice; give each class a name of its own.")
    return names


def _pair(data: MaskSplits, root: Path, split: Split, images: Path, masks: Path) -> None:
    """Add the samples of two folders, matched by their stems; those of a stem that is there twice are left out."""
    both_sides, known = (_by_stem(images), _by_stem(masks)), len(data.problems)
    twice = {stem for side in both_sides for stem, paths in side.items() if len(paths) > 1}
    for side in both_sides:
        for first, *others in side.values():
            if others:
                names = ", ".join(printable(path.name) for path in others)
                reason = f"{names} beside it has the same stem, by which images and masks are matched; keep one of them"
                data.problems.append(DataProblem(printable(first.relative_to(root)), reason, "twice"))
    found, partners = ({stem: one for stem, (one, *_) in side.items() if stem not in twice} for side in both_sides)
    for stem, path in found.items():
        if stem not in partners:
            name = printable(path.relative_to(root))
            data.problems.append(DataProblem(name, f"no mask of this name in {masks.relative_to(root)}/", "no mask"))
    for stem, path in partners.items():
        if stem not in found:
            data.problems.append(DataProblem(printable(path.relative_to(root)), "no image of this name", "no image"))
    both = [stem for stem in found if stem in partners]
    if both:
        ids = [printable(found[stem].relative_to(root)) for stem in both]
        files = [found[stem] for stem in both], [partners[stem] for stem in both]
        skipped = [problem.id for problem in data.problems[known:]]
        data.sets[split] = MaskSet(f"{data.name} {split}", ids, *files, skipped)


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    """Return the images of a folder by their path in it without the ending."""
    found: dict[str, list[Path]] = {}
    for path in _files(folder, EXTENSIONS):
        found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    return found


def _files(folder: Path, endings: frozenset[str]) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings and path.name[0] != ".")


def _hold_out(data: MaskSplits, share: float) -> None:
    """Move a share of the training samples to val."""
    train = data.sets["train"]
    order = sorted(range(len(train)), key=lambda i: blake2b(f"val\0{train.ids[i]}".encode(), digest_size=16).digest())
    count = min(max(round(share * len(train)), 1), len(train) - 1)
    if count < 1:
        raise VitrailError(f"{train.name} has one sample, so none can be held out for val. Add samples or a val split.")
    held = set(order[:count])
    data.sets["val"] = train.take(sorted(held), f"{data.name} val")
    data.sets["train"] = train.take([i for i in range(len(train)) if i not in held], train.name)
