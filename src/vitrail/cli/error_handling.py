"""Messages and exit codes of user errors; any other exception is a bug and keeps its traceback."""

import errno
import re

from vitrail.errors import ResourceError, VitrailError
from vitrail.models.custom import VARIABLE, own_fault

TRACE = "VITRAIL_TRACE"

_FULL = "No space left on device"
# FileNotFoundError is excluded: for our files it is a bug, and for the user's files the verb has raised already.
_WRONG_PLACE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def explain_failure(error: BaseException) -> tuple[str | None, int]:
    """Return message and exit code for a user error, `(None, 1)` for a bug.

    Example:
        >>> explain_failure(VitrailError("No such model."))
        ('No such model.', 2)
        >>> explain_failure(ZeroDivisionError())
        (None, 1)
    """
    if isinstance(error, VitrailError):
        return str(error), error.exit_code
    if _is_full_disk(error):
        place = getattr(error, "filename", None)
        where = f" while writing {place}" if place else ""
        return f"The disk is full{where}.\nFree some space or choose another folder, then run it again.", _RESOURCE
    if _is_out_of_memory(error):
        return (
            f"Out of memory{_requested(str(error))}.\nUse a smaller batch, smaller images or a smaller model.",
            _RESOURCE,
        )
    if isinstance(error, OSError) and error.errno in _WRONG_PLACE and error.filename is not None:
        return f"Cannot use {error.filename}: {error.strerror}.\nChoose another place, or change its rights.", 2
    if fault := own_fault(error):
        return f"{fault}\n{VARIABLE} names this file. {TRACE}=1 before the command shows every call.", 2
    return None, 1


_RESOURCE = ResourceError.exit_code
_BYTES = re.compile(r"allocate (?P<bytes>\d+) bytes|allocate (?P<gib>[\d.]+ [KMGT]iB)", re.IGNORECASE)


def _requested(text: str) -> str:
    """Return the size of the failed allocation, from the message of an allocator.

    Example:
        >>> _requested("DefaultCPUAllocator: you tried to allocate 3221225472 bytes.")
        ': 3.0 GiB more were needed'
    """
    found = _BYTES.search(text)
    if found is None:
        return ""
    size = found["gib"] or f"{int(found['bytes']) / 2**30:,.1f} GiB"
    return f": {size} more were needed"


def _is_full_disk(error: BaseException) -> bool:
    # safetensors and zip writers wrap the system's error in their own type and keep only its message
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or _FULL in str(error)


def _is_out_of_memory(error: BaseException) -> bool:
    # torch's type is matched by its name: this file must not import torch
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
