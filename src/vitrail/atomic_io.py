"""Writing that survives: a crash or a loss of power leaves the old file or the new one, never neither and never half.

A file is written beside its target, flushed to the disk and renamed over it; a folder is built beside its target and
exchanged with it in one step. What is being replaced is touched only when its successor is whole and its name is on the
disk: until its folder is flushed a name is not sure, and a disk may keep a removal and lose the rename before it.
"""

import ctypes
import errno
import glob
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vitrail.errors import ResourceError, VitrailError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WRONG_PLACE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux
_SYNCHRONIZE, _ACCESS_DENIED, _WAIT_TIMEOUT = 0x100000, 5, 0x102  # of Windows


def write_file(path: str | Path, content: bytes) -> None:
    """Write `content` to `path` so that a crash at any moment leaves the old file or the new one.

    Args:
        path: the file to make or to replace; its folder must exist.
        content: every byte of the file.

    Raises:
        ResourceError: the disk is full; `path` is as it was.
        VitrailError: the place takes no file.
    """
    path = Path(path)
    new = _beside(path)
    try:
        with full_disk(path, needed=len(content)), _wrong_place(path):
            with open(new, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
            flush_folder(path.parent)
    finally:
        with suppress(NotADirectoryError, PermissionError):  # then it was never made
            new.unlink(missing_ok=True)


def refuse_unwritable(path: str | Path) -> None:
    """Find out before long work that its result could not be written; a new file is made beside it and removed.

    Args:
        path: the file that is to be made or replaced.

    Raises:
        VitrailError: its folder is not there or takes no files, or the path is a folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise VitrailError(f"{path}: there is no folder {path.parent}. Make it first.")
    if path.is_dir():
        raise VitrailError(f"{path} is a folder. Name a file in it.")
    _try(_beside(path), path)


def refuse_unwritable_folder(folder: str | Path) -> None:
    """Find out before long work that a folder could not be made, or that the one that is there takes no files.

    Args:
        folder: the folder that is to be made, filled or replaced; its parents may be missing.

    Raises:
        VitrailError: it or a parent is a file, or takes no files.
    """
    folder, whole = Path(folder), Path(os.path.abspath(folder))
    there = next(path for path in (whole, *whole.parents) if os.path.lexists(path))
    if not there.exists():
        raise VitrailError(f"{folder} cannot be made: the link {there} leads nowhere. Choose another place.")
    if not there.is_dir():
        what = "is a file" if there == whole else f"cannot be made: {there} is a file"
        raise VitrailError(f"{folder} {what}. Choose another place.")
    _try(_beside(there / "file"), folder)


@contextmanager
def replace_folder(target: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` that takes its place, whole and flushed, when the block ends well.

    When the block raises, the new folder is removed and `target` is as it was. On Linux the two folders are exchanged
    in one step; elsewhere there are two renames, and `settle` repairs a crash between them.

    Args:
        target: the folder to make or to replace; missing parents are made.

    Raises:
        ResourceError: the disk is full; `target` is as it was.
        VitrailError: `target` is a file, or its place takes no folder.
    """
    target = Path(os.path.abspath(target))
    if target.exists() and not target.is_dir():
        raise VitrailError(
            f"Cannot write a folder at {target}: a file is there. Choose another place or remove the file."
        )
    make_folder(target.parent)
    settle(target)
    new = _beside(target)
    with full_disk(target), _wrong_place(target):
        new.mkdir()
    try:
        with full_disk(target):
            yield new
            _flush_tree(new)
            _take_place(new, target)
            flush_folder(target.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def make_folder(folder: str | Path) -> None:
    """Make a folder and its missing parents, and flush their names; do nothing where it is there.

    Raises:
        ResourceError: the disk is full.
        VitrailError: no folder can be made there.
    """
    folder = Path(os.path.abspath(folder))
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        try:
            with full_disk(path):
                path.mkdir(exist_ok=True)
        except OSError as error:
            raise VitrailError(f"The folder {path} cannot be made ({error.strerror}). Choose another place.") from error
        flush_folder(path.parent)


def settle(target: str | Path) -> None:
    """Finish or undo what a crashed `replace_folder` left beside `target`; do nothing where nothing was left.

    A set-aside folder whose successor never came goes back to its place; what dead processes were still building is
    removed. Readers call it before they say that `target` is missing.
    """
    target = Path(os.path.abspath(target))
    aside = _aside(target)
    if aside.exists() and not target.exists():
        aside.rename(target)
    litter = [left for left in target.parent.glob(f".{glob.escape(target.name)}.new-*") if not _alive(left)]
    if aside.exists():
        litter.append(aside)
    if litter:
        flush_folder(target.parent)  # a killed process may have left the name of their successor unsure
    for left in litter:
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


@contextmanager
def full_disk(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn "no space left on device" inside the block into a `ResourceError` that names the figures.

    Args:
        path: what is being written.
        needed: how many bytes it takes, where that is known.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        free = shutil.disk_usage(path.parent).free
        path = _public(path)
        want = f"{needed:,} bytes needed, " if needed is not None else ""
        raise ResourceError(
            f"Cannot write {path}: {os.strerror(error.errno)} ({want}{free:,} bytes free).\n"
            "What was there before is untouched. Free some space or choose another disk, and run it again."
        ) from error


@contextmanager
def _wrong_place(path: Path) -> Iterator[None]:
    """Turn "this place takes no such thing" inside the block into a `VitrailError` that names the place."""
    try:
        yield
    except OSError as error:
        # A missing folder is a mistake of the caller; but /proc and its like say of each new file that it is missing.
        missing = error.errno == errno.ENOENT and not (error.filename and Path(error.filename).parent.is_dir())
        if missing or error.errno not in {errno.ENOENT, *_WRONG_PLACE}:
            raise
        raise VitrailError(
            f"{_public(path)} cannot be written ({error.strerror}). Choose another place, or change its rights."
        ) from error


def _try(new: Path, path: Path) -> None:
    """Make a file and remove it; an error names `path`, for whose sake it was tried."""
    with full_disk(path), _wrong_place(path):
        new.touch(exist_ok=False)
    new.unlink()


def _beside(path: Path) -> Path:
    """Name a new neighbour of `path` that tells who is making it."""
    return path.with_name(f".{path.name}.new-{os.getpid()}-{secrets.token_hex(4)}")


def _public(path: Path) -> Path:
    """Return the path that somebody asked for, where a part of it is the neighbour in which it is being made.

    Example:
        >>> str(_public(Path("runs/.best.new-71-0a1b2c3d/model.safetensors")))
        'runs/best/model.safetensors'
    """
    return Path(*(re.sub(r"^\.(.+)\.new-\d+-[0-9a-f]{8}$", r"\1", part) for part in path.parts))


def _aside(target: Path) -> Path:
    """Name the place where an old folder waits while its successor takes its name."""
    return target.with_name(f".{target.name}.old")


def _alive(left: Path) -> bool:
    """Say whether the process that was making the neighbour `left` still runs."""
    pid = left.name.rpartition(".new-")[2].partition("-")[0]
    if not pid.isdigit():
        return True  # not a name of ours: leave it alone
    return _runs_on_windows(int(pid)) if sys.platform == "win32" else _runs(int(pid))


def _runs(pid: int) -> bool:
    """Say whether a process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _runs_on_windows(pid: int) -> bool:
    """Say whether a process runs; `os.kill` would end it there."""
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # pyright: ignore[reportAttributeAccessIssue]
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(kernel.OpenProcess(_SYNCHRONIZE, False, pid))
    if not handle:
        return ctypes.get_last_error() == _ACCESS_DENIED  # pyright: ignore[reportAttributeAccessIssue]
    try:
        return kernel.WaitForSingleObject(handle, 0) == _WAIT_TIMEOUT
    finally:
        kernel.CloseHandle(handle)


def _take_place(new: Path, target: Path) -> None:
    """Rename `new` to `target`; what was there is removed, after the step that cannot be half done."""
    if not target.exists():
        new.rename(target)
    elif not _exchange(new, target):
        aside = _aside(target)
        flush_folder(target.parent)  # a crash between the two renames must find both folders
        target.rename(aside)
        new.rename(target)
        flush_folder(target.parent)
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap the names of two folders in one atomic step; say whether this system and file system can."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    code = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if code == 0:
        return True
    number = ctypes.get_errno()
    if number in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _flush_tree(folder: Path) -> None:
    """Flush every file and folder under `folder` to the disk, the leaves first."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            with open(os.path.join(root, name), "rb") as file:
                os.fsync(file.fileno())
        flush_folder(Path(root))


def flush_folder(folder: Path) -> None:
    """Flush the names in a folder; file systems that cannot do that for a folder do not need it."""
    with suppress(PermissionError):  # Windows does not open folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
