"""Images sorted into class folders: `class/*.jpg`, or `train/class/*.jpg`, `val/...` and `test/...`.

The same rule reads folders on a disk and folders inside a tar, so it works on paths and never touches a file.
"""

import re
from collections.abc import Iterable, Mapping
from os.path import splitext
from pathlib import Path

from vitrail.data.dataset import Span
from vitrail.data.image_io import BANDS, EXTENSIONS
from vitrail.data.index import SPLIT_NAMES, DataProblem, DatasetIndex, Record, Split

FOREIGN = frozenset(
    (".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".eps", ".pdf", ".psd", ".raw", ".cr2", ".nef", ".dng", ".tga")
)
"""Endings of images in formats that are not read: to lose them in silence would be a lie."""

_OUTSIDE = "images outside the folders of the classes"
_IN_SPLITS = " (they lie in folders that are taken for splits by their names)"

Parts = tuple[str, ...]


def is_hidden(path: str) -> bool:
    """Tell whether a path belongs to an operating system rather than to the data (`.DS_Store`, `__MACOSX/...`).

    Example:
        >>> is_hidden("cats/.DS_Store"), is_hidden("__MACOSX/cats/1.jpg"), is_hidden("cats/1.jpg")
        (True, True, False)
    """
    return "/." in f"/{path}" or "__MACOSX" in path or path.endswith(("Thumbs.db", "desktop.ini"))


def arrange(name: str, files: Mapping[str, Path | Span], folders: Iterable[str] = ()) -> DatasetIndex:
    """Sort files into splits and classes by the folders they lie in.

    Args:
        name: the data set, as shown to people.
        files: where each file is, by its path inside the data set, with `/`.
        folders: all folders, so that empty classes are noticed.
    """
    listing = DatasetIndex(name)
    paths = {key: tuple(key.split("/")) for key in sorted(files) if not is_hidden(key)}
    branches = {tuple(folder.split("/")) for folder in folders if not is_hidden(folder)}
    branches |= {parts[:-1] for parts in paths.values()}
    endings = {splitext(key)[1].lower() for key in paths}
    taken = EXTENSIONS if endings & EXTENSIONS else BANDS  # arrays beside images are something else
    depth, has_splits = _find_classes(branches, paths.values(), taken)

    def split_of(parts: Parts) -> Split | None:
        if not has_splits:
            return "train"
        return SPLIT_NAMES.get(parts[depth - 1].lower()) if len(parts) >= depth else None

    populated = set()
    for key, parts in paths.items():
        suffix = splitext(key)[1].lower()
        split = split_of(parts)
        if suffix not in taken and suffix not in FOREIGN:
            listing.ignored[suffix or parts[-1]] += 1
        elif split is None or len(parts) < depth + 2:
            listing.ignored[_OUTSIDE + (_IN_SPLITS if has_splits and len(parts) == depth + 1 else "")] += 1
        elif suffix in FOREIGN:
            reason = f"the format {suffix} is not read; convert it to PNG or JPEG"
            listing.problems.append(DataProblem(key, reason, "format"))
        else:
            populated.add(parts[: depth + 1])
            listing.add(split, Record(key, parts[depth], files[key]))
    listing.warnings += _doubtful_names(depth, has_splits, populated, branches)
    for branch in sorted(branches - populated):
        if len(branch) == depth + 1 and split_of(branch) is not None:
            reason = "the class has no images; remove the folder or fill it"
            listing.problems.append(DataProblem("/".join(branch), reason, "empty class"))
    return listing


def _names_splits(names: set[str], depth: int, images: list[Parts]) -> bool:
    """Return whether folders at a depth are splits: all have such names, or `train` has and the others are no classes.

    `train` is also a class (COCO, VOC): it is one if it holds images itself, or if siblings of other names hold images.
    """
    if names and names <= set(SPLIT_NAMES):
        return True
    if "train" not in names:
        return False
    others = {parts[depth].lower() for parts in images if len(parts) > depth + 1} - set(SPLIT_NAMES)
    direct = any(len(parts) == depth + 2 and parts[depth].lower() == "train" for parts in images)
    return not others and not direct


def _doubtful_names(depth: int, has_splits: bool, populated: set[Parts], branches: set[Parts]) -> list[str]:
    """Return warnings about classes whose names hold the name of a split and that hold folders."""
    if has_splits:
        return []
    names = sorted({parts[depth] for parts in populated if len(parts) == depth + 1})
    like = [name for name in names if set(re.split(r"[^a-z]+", name.lower())) & set(SPLIT_NAMES)]
    holding = [name for name in like if any(len(branch) > depth + 1 and branch[depth] == name for branch in branches)]
    if not holding:
        return []
    shown = ", ".join(holding[:4])
    return [
        f"the classes {shown} have names of splits and hold folders: if they are splits, name them train, val, test"
    ]


def _find_classes(branches: set[Parts], paths: Iterable[Parts], taken: frozenset[str]) -> tuple[int, bool]:
    """Return the depth of the class folders, and whether the folder above them names the split."""
    depth = 0
    images = [parts for parts in paths if splitext(parts[-1])[1].lower() in taken]
    populated = {len(parts) for parts in images}
    while True:
        names = {branch[depth].lower() for branch in branches if len(branch) > depth}
        if _names_splits(names, depth, images):
            return depth + 1, True
        deeper = any(len(branch) > depth + 1 for branch in branches)
        if len(names) != 1 or not deeper or depth + 2 in populated:
            return depth, False
        depth += 1
