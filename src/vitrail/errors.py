"""Errors that teach: what we got, what we need, what to do.

Every error a user can cause is a `VitrailError`. The command line prints its message without a traceback and leaves
with its `exit_code`; a library user catches it as the `ValueError` that it is.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class VitrailError(ValueError):
    """A choice of the user that cannot work: a name, a shape, a file that is not there."""

    exit_code = 2


class DataError(VitrailError):
    """Data that cannot be used: a picture that does not decode, a folder without classes, a broken checkpoint."""

    exit_code = 3


class ResourceError(VitrailError):
    """The machine ran out of something: disk, memory."""

    exit_code = 4


def nearest(got: str, valid: Iterable[str], count: int = 3) -> list[str]:
    """Return the `valid` names that look most like `got`, best first.

    Example:
        >>> nearest("swim_tiny", ["swin_tiny", "vit_tiny", "resnet"], count=1)
        ['swin_tiny']
        >>> nearest("swim_tiny", ["swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"], count=1)
        ['swin_tiny_patch4_window7_224']
    """
    names = {name.lower(): name for name in valid}
    key = got.lower()
    close = get_close_matches(key, names, n=count, cutoff=0.6)
    starts = get_close_matches(key, {name[: len(key)] for name in names}, n=1, cutoff=0.7) if len(key) > 3 else []
    begun = [name for name in names if starts and name.startswith(starts[0]) and name not in close]
    contained = [name for name in names if key in name and name not in close + begun]
    return [names[name] for name in (close + sorted(begun, key=len) + sorted(contained, key=len))[:count]]


def unknown(kind: str, got: str, valid: Iterable[str], hint: str = "") -> VitrailError:
    """Build the error for a name that nobody knows, with the nearest names that somebody does.

    Example:
        >>> print(unknown("model", "vitt", ["vit", "swin"]))
        Unknown model 'vitt'. Did you mean: vit?
    """
    valid = sorted(valid)
    close = nearest(got, valid)
    if close:
        guess = f"Did you mean: {', '.join(close)}?"
    elif len(valid) <= 30:
        guess = f"Valid: {', '.join(valid)}."
    else:
        guess = f"There are {len(valid)}; for example {', '.join(valid[:3])}."
    return VitrailError(f"Unknown {kind} '{got}'. {guess}" + (f"\n{hint}" if hint else ""))
