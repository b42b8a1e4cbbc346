"""Pictures sorted into folders: `class/*.jpg`, or `train/class/*.jpg` beside `val` and `test`.

The same rule reads folders on a disk and folders inside a tar, so it works on paths and never touches a file.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from vitrail.data.dataset import Span
from vitrail.data.listing import SPLIT_NAMES, Entry, Listing, Problem
from vitrail.data.picture import EXTENSIONS

FOREIGN = frozenset(
    [
        ".heic",
        ".heif",
        ".avif",
        ".jxl",
        ".jp2",
        ".svg",
        ".eps",
        ".pdf",
        ".psd",
        ".raw",
        ".cr2",
        ".nef",
        ".dng",
        ".tga",
        ".ico",
        ".mp4",
        ".npy",
    ]
)
"""Endings of what is meant to be a picture, in formats that are not read: losing these in silence would be a lie."""


def is_hidden(path: PurePosixPath) -> bool:
    """Tell whether a path belongs to an operating system rather than to the data (`.DS_Store`, `__MACOSX/...`)."""
    return any(part.startswith(".") or part in ("__MACOSX", "Thumbs.db", "desktop.ini") for part in path.parts)


def arrange(name: str, files: Mapping[str, Path | Span], folders: Iterable[str] = ()) -> Listing:
    """Sort files into splits and classes by the folders they lie in.

    Args:
        name: the data set, as shown to people.
        files: where each file is, by its path inside the data set, with `/`.
        folders: all folders, so that empty classes are noticed.
    """
    listing = Listing(name)
    paths = {key: PurePosixPath(key) for key in sorted(files) if not is_hidden(PurePosixPath(key))}
    branches = {PurePosixPath(folder).parts for folder in folders} | {path.parent.parts for path in paths.values()}
    depth = _depth_of_classes(branches, list(paths.values()))
    populated = set()
    for key, path in paths.items():
        suffix = path.suffix.lower()
        if len(path.parts) < depth + 2 or (suffix not in EXTENSIONS and suffix not in FOREIGN):
            listing.ignored["pictures outside a class folder" if suffix in EXTENSIONS else suffix or path.name] += 1
        elif suffix in FOREIGN:
            listing.problems.append(
                Problem(key, f"the format {suffix} is not read; convert it to PNG or JPEG", "format")
            )
        else:
            split = SPLIT_NAMES.get(path.parts[depth - 1].lower()) if depth else "train"
            if split is None:
                listing.ignored[f"files in {path.parts[depth - 1]}/"] += 1
                continue
            populated.add(path.parts[: depth + 1])
            listing.add(split, Entry(key, path.parts[depth], files[key]))
    for branch in sorted(branches):
        in_split = not depth or (len(branch) > depth - 1 and branch[depth - 1].lower() in SPLIT_NAMES)
        if len(branch) == depth + 1 and in_split and branch not in populated and not is_hidden(PurePosixPath(*branch)):
            listing.problems.append(
                Problem("/".join(branch), "the class has no pictures; remove the folder or fill it", "empty class")
            )
    return listing


def _depth_of_classes(branches: set[tuple[str, ...]], paths: list[PurePosixPath]) -> int:
    """Return how many folders lie above the folders of the classes: 0, 1 for splits, more inside a common folder."""
    depth = 0
    while True:
        tops = {branch[depth] for branch in branches if len(branch) > depth}
        names = {top.lower() for top in tops if not is_hidden(PurePosixPath(top))}
        if "train" in names or (names and names <= set(SPLIT_NAMES)):
            return depth + 1
        deeper = any(len(branch) > depth + 1 for branch in branches)
        here = any(len(path.parts) == depth + 2 and path.suffix.lower() in EXTENSIONS for path in paths)
        if len(names) != 1 or not deeper or here:
            return depth
        depth += 1
