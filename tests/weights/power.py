"""A disk that loses its power: file operations are recorded, and replayed with all losses that may occur.

Only what was flushed is sure to be there. Names belong to their folder and are sure once the folder was flushed; bytes
belong to their file and are sure once the file was flushed. Whatever was not flushed may be lost or kept, in any order:
a renamed file may be there without its bytes, a removal may outlive the rename that came before it. A rename, and an
exchange of two names, is whole or not at all.
"""

import builtins
import os
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest

from vitrail import atomic_io
from vitrail.weights import folder as model_folder

Tree = dict[str, Any]
"""Bytes and trees by name."""

MOST_SUBSETS = 256
DEAD = 2**22 + 7  # no process has this number, so its files are leftovers


@dataclass(eq=False)
class File:
    """Contents of a file since its last flush; the first is on the disk, the last is visible to programs."""

    contents: list[bytes] = field(default_factory=lambda: [b""])


@dataclass(eq=False)
class Folder:
    """Names of files and folders: as they are on the disk, and as programs see them."""

    sure: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Change:
    """Names of one folder that change together; None is no longer there."""

    folder: Folder
    names: dict[str, Any]


def apply(names: dict[str, Any], change: Change) -> None:
    """Carry a change out."""
    names.update(change.names)
    for name in [name for name, node in names.items() if node is None]:
        del names[name]


class Disk:
    """Files, folders, and the changes of names that were not flushed yet."""

    def __init__(self) -> None:
        self.top, self.waiting = Folder(), list[Change]()

    def find(self, parts: tuple[str, ...]) -> Any:
        """Return the file or folder at a path, as programs see it."""
        node: Any = self.top
        for part in parts:
            node = node.seen.get(part) if isinstance(node, Folder) else None
        return node

    def change(self, folder: Folder, names: dict[str, Any]) -> None:
        """Change names of a folder."""
        self.waiting.append(Change(folder, names))
        apply(folder.seen, self.waiting[-1])

    def flush(self, node: File | Folder) -> None:
        """Make the visible state durable."""
        if isinstance(node, File):
            node.contents = node.contents[-1:]
        else:
            node.sure = dict(node.seen)
            self.waiting = [change for change in self.waiting if change.folder is not node]

    def seen(self) -> Tree:
        """Return the tree as programs see it."""
        return look(self.top, lambda folder: folder.seen, lambda file: file.contents[-1])

    def losses(self) -> Iterator[Tree]:
        """Yield every tree that may be found after the power was lost now."""
        reachable = self.reachable()
        for kept in subsets([change for change in self.waiting if change.folder in reachable]):
            names: dict[Folder, dict[str, Any]] = {}
            for change in kept:
                apply(names.setdefault(change.folder, dict(change.folder.sure)), change)
            view = lambda folder, names=names: names.get(folder, folder.sure)  # noqa: E731
            files: list[File] = []
            look(self.top, view, lambda file, files=files: files.append(file) or b"")
            unsure = [file for file in files if len(file.contents) > 1]
            for choice in product(range(3), repeat=len(unsure)) if len(unsure) < 4 else [(n,) * 99 for n in range(3)]:
                which = dict(zip(unsure, choice, strict=False))
                yield look(self.top, view, lambda file, which=which: versions(file)[which.get(file, 0)])

    def reachable(self) -> set[Folder]:
        """Return the folders that may be found; changes in the others do not matter."""
        found, ahead = set[Folder](), [self.top]
        while ahead:
            folder = ahead.pop()
            if folder not in found:
                found.add(folder)
                views = [folder.sure, *(change.names for change in self.waiting if change.folder is folder)]
                ahead += [node for names in views for node in names.values() if isinstance(node, Folder)]
        return found


def versions(file: File) -> tuple[bytes, bytes, bytes]:
    """Return a file's bytes if unflushed data is lost, torn, or whole."""
    last = file.contents[-1]
    return file.contents[0], last[: len(last) // 2], last


def look(folder: Folder, names: Callable[[Folder], dict[str, Any]], content: Callable[[File], bytes]) -> Tree:
    """Return the tree that a view of folders and files shows."""
    return {
        name: look(node, names, content) if isinstance(node, Folder) else content(node)
        for name, node in sorted(names(folder).items())
    }


def subsets(changes: list[Change]) -> Iterator[tuple[Change, ...]]:
    """Yield the data that may have reached the disk, in order: every subset, or a selection if there are many."""
    count = len(changes)
    if 2**count <= MOST_SUBSETS:
        for size in range(count + 1):
            yield from combinations(changes, size)
        return
    for i in range(count + 1):
        yield tuple(changes[:i])  # the first i
        yield tuple(changes[i:])  # all but the first i
        yield tuple(changes[:i] + changes[i + 1 :])  # all but one
        yield tuple(changes[i : i + 1])  # one alone


def write_tree(place: Path, tree: Tree) -> None:
    """Make a tree real."""
    place.mkdir()
    for name, value in tree.items():
        if isinstance(value, dict):
            write_tree(place / name, value)
        else:
            (place / name).write_bytes(value)


def read_tree(place: Path) -> Tree:
    """Read a real tree."""
    return {path.name: read_tree(path) if path.is_dir() else path.read_bytes() for path in sorted(place.iterdir())}


class Recorder:
    """Executes a program's file operations below `root`, and keeps a copy of the disk after each step."""

    def __init__(self, root: Path, disk: Disk | None = None):
        self.root, self.disk = root, disk or Disk()
        self.moments: list[tuple[Disk, int]] = []
        self.returned = 0
        self.keep()

    def run(self, work: Callable[[], Any]) -> None:
        """Record one piece of work; it counts as returned from then on."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "getpid", lambda: DEAD)
            for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync", "open"):
                patch.setattr(os, name, getattr(self, name)(getattr(os, name)))
            patch.setattr(builtins, "open", self.open_file(builtins.open))
            patch.setattr(atomic_io, "_exchange", self.exchange(atomic_io._exchange))
            patch.setattr(model_folder, "save_file", self.save_file(model_folder.save_file))
            work()
        assert self.disk.seen() == read_tree(self.root), "something was done that the recorder does not know"
        self.returned += 1
        self.keep()

    def keep(self) -> None:
        """Keep the disk as it is now."""
        self.moments.append((deepcopy(self.disk), self.returned))

    def parts(self, path: Any, dir_fd: int | None = None) -> tuple[str, ...] | None:
        """Return the path relative to the root, or None if it is outside."""
        base = Path(os.readlink(f"/proc/self/fd/{dir_fd}")) if dir_fd is not None else Path.cwd()
        path = base / os.fsdecode(path)
        return path.relative_to(self.root).parts if path.is_relative_to(self.root) else None

    def change(self, path: Any, node: File | Folder | None, dir_fd: int | None = None) -> None:
        """Record the target of a name."""
        parts = self.parts(path, dir_fd)
        if parts is not None:
            self.disk.change(self.disk.find(parts[:-1]), {parts[-1]: node})
            self.keep()

    def wrote(self, path: Any) -> None:
        """Record the contents of a file."""
        file = self.disk.find(self.parts(path) or ())
        file.contents.append(Path(path).read_bytes())
        self.keep()

    # Replacements of the system calls.

    def mkdir(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> None:
            real(path, *args, **kwargs)
            self.change(path, Folder())

        return call

    def rename(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(source: Any, target: Any) -> None:
            real(source, target)
            before, after = self.parts(source), self.parts(target)
            assert before and after and before[:-1] == after[:-1], "names move within their folder only"
            folder = self.disk.find(before[:-1])
            self.disk.change(folder, {after[-1]: folder.seen[before[-1]], before[-1]: None})
            self.keep()

        return call

    replace = rename

    def exchange(self, real: Callable[..., bool]) -> Callable[..., bool]:
        def call(one: Path, other: Path) -> bool:
            if not real(one, other):
                return False
            folder = self.disk.find((self.parts(one) or ())[:-1])
            self.disk.change(folder, {one.name: folder.seen[other.name], other.name: folder.seen[one.name]})
            self.keep()
            return True

        return call

    def unlink(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *, dir_fd: int | None = None) -> None:
            real(path, dir_fd=dir_fd)
            self.change(path, None, dir_fd)

        return call

    rmdir = unlink

    def fsync(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(handle: int) -> None:
            parts = self.parts(os.readlink(f"/proc/self/fd/{handle}"))
            if parts is not None:  # the real flush would only cost time
                self.disk.flush(self.disk.find(parts))
                self.keep()

        return call

    def open(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            new = bool(flags & os.O_CREAT) and not os.path.lexists(path)
            handle = real(path, flags, *args, **kwargs)
            if new:
                self.change(path, File())
            return handle

        return call

    def open_file(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if isinstance(path, int) or not set(mode) & set("xwa+") or self.parts(path) is None:
                return real(path, mode, *args, **kwargs)
            assert "x" in mode, "a file that is there is replaced, never changed"
            file = real(path, mode, *args, **kwargs)
            self.change(path, File())
            return Watched(file, lambda: self.wrote(path))

        return call

    def save_file(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(tensors: Any, path: Any, **kwargs: Any) -> None:
            real(tensors, path, **kwargs)
            self.change(path, File())  # whether it writes into the file or puts another in its place, this is the worst
            self.wrote(path)

        return call


class Watched:
    """A file that records its writes."""

    def __init__(self, file: Any, wrote: Callable[[], None]):
        self.file, self.wrote = file, wrote

    def write(self, content: bytes) -> None:
        self.file.write(content)
        self.file.flush()
        self.wrote()

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, *error: Any) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def every_loss(recorder: Recorder, place: Path) -> Iterator[tuple[Path, int]]:
    """Make each tree that may be found real, once, and yield its place and how much work had returned by then."""
    done = set()
    for disk, returned in recorder.moments:
        for tree in disk.losses():
            key = repr(tree), returned
            if key not in done:
                done.add(key)
                write_tree(place, tree)
                yield place, returned
                shutil.rmtree(place)
