"""Atomic writes: a crash or a power cut leaves the old file or the new one, never a partial one.

A file is written to a temporary name in the same folder, flushed to the disk and renamed over its target; a folder is
built under a temporary name and exchanged with its target in one step. The old version is removed only after the new
one and its name are flushed: a disk may otherwise keep the removal and lose the rename before it.
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
    """Write `content` to `path` atomically: a crash leaves the old file or the new one.

    Args:
        path: the file to create or replace; its folder must exist.
        content: every byte of the file.

    Raises:
        ResourceError: the disk is full; `path` is unchanged.
        VitrailError: `path` cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_file(f"{folder}/a.txt", b"whole or not at all")
        ...     Path(f"{folder}/a.txt").read_bytes()
        b'whole or not at all'
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


def check_writable(path: str | Path) -> None:
    """Check before long work that its result can be written; creates and removes a temporary file in the same folder.

    Args:
        path: the file to create or replace.

    Raises:
        VitrailError: its folder does not exist or is not writable, or the path is a folder.

    Example:
        >>> check_writable("/no/such/folder/a.txt")
        Traceback (most recent call last):
        vitrail.errors.VitrailError: /no/such/folder/a.txt: there is no folder /no/such/folder. Make it first.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise VitrailError(f"{path}: there is no folder {path.parent}. Make it first.")
    if path.is_dir():
        raise VitrailError(f"{path} is a folder. Name a file in it.")
    _try(_beside(path), path)


def check_writable_folder(folder: str | Path) -> None:
    """Check before long work that a folder can be created, or that an existing one is writable.

    Args:
        folder: the folder to create, fill or replace; its parents may be missing.

    Raises:
        VitrailError: it or a parent is a file, or not writable.
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
    """Yield an empty temporary folder that replaces `target`, complete and flushed, if the block succeeds.

    If the block raises, the new folder is removed and `target` is unchanged. On Linux the two folders are exchanged
    in one step; elsewhere there are two renames, and `settle` repairs a crash between them.

    Args:
        target: the folder to create or replace; missing parents are created.

    Raises:
        ResourceError: the disk is full; `target` is unchanged.
        VitrailError: `target` is a file, or cannot be created.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     with replace_folder(Path(place) / "model") as new:
        ...         _ = (new / "a.txt").write_text("complete")
        ...     (Path(place) / "model" / "a.txt").read_text()
        'complete'
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
    """Create a folder and its missing parents, and flush their names; do nothing if it exists.

    Raises:
        ResourceError: the disk is full.
        VitrailError: the folder cannot be created.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     make_folder(f"{folder}/a/b")
        ...     Path(f"{folder}/a/b").is_dir()
        True
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
    """Finish or undo a crashed `replace_folder` of `target`, if there was one.

    A backup whose replacement is missing is renamed back; temporary folders of dead processes are removed. Readers call
    it before they raise an error for a missing `target`.
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
    """Convert "no space left on device" inside the block to a `ResourceError` with the sizes.

    Args:
        path: the file or folder being written.
        needed: its size in bytes, if known.
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
    """Convert errors about an unwritable path inside the block to a `VitrailError` that names it."""
    try:
        yield
    except OSError as error:
        # A missing folder is a bug of the caller; but /proc and similar file systems report it for every new file.
        missing = error.errno == errno.ENOENT and not (error.filename and Path(error.filename).parent.is_dir())
        if missing or error.errno not in {errno.ENOENT, *_WRONG_PLACE}:
            raise
        raise VitrailError(
            f"{_public(path)} cannot be written ({error.strerror}). Choose another place, or change its rights."
        ) from error


def _try(new: Path, path: Path) -> None:
    """Create and remove a temporary file; an error names `path`."""
    with full_disk(path), _wrong_place(path):
        new.touch(exist_ok=False)
    new.unlink()


def _beside(path: Path) -> Path:
    """Return a new temporary path in the folder of `path`, with the id of this process."""
    return path.with_name(f".{path.name}.new-{os.getpid()}-{secrets.token_hex(4)}")


def _public(path: Path) -> Path:
    """Return the requested path for a path inside a temporary folder.

    Example:
        >>> str(_public(Path("runs/.best.new-71-0a1b2c3d/model.safetensors")))
        'runs/best/model.safetensors'
    """
    return Path(*(re.sub(r"^\.(.+)\.new-\d+-[0-9a-f]{8}$", r"\1", part) for part in path.parts))


def _aside(target: Path) -> Path:
    """Return the backup path of an old folder during its replacement."""
    return target.with_name(f".{target.name}.old")


def _alive(left: Path) -> bool:
    """Return whether the process that created the temporary path `left` is alive."""
    pid = left.name.rpartition(".new-")[2].partition("-")[0]
    if not pid.isdigit():
        return True  # not a name of ours: leave it alone
    return _runs_on_windows(int(pid)) if sys.platform == "win32" else _runs(int(pid))


def _runs(pid: int) -> bool:
    """Return whether a process is alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _runs_on_windows(pid: int) -> bool:
    """Return whether a process is alive; `os.kill` would terminate it on Windows."""
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
    """Rename `new` to `target`; the old version is removed after the atomic step."""
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
    """Swap the names of two folders in one atomic step; return whether the system supports it."""
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
    """Flush every file and folder under `folder` to the disk, leaves first."""
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
