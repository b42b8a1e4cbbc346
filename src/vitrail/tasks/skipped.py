"""Samples that an evaluation skips, or could skip: number, first names and hint, formatted for all tasks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypedDict

from vitrail.data.image_io import ImageDecodeError
from vitrail.data.index import left_out
from vitrail.data.points.cloud import PointFileError
from vitrail.errors import DataError

NAMED = 5
"""Maximum number of names listed."""


class SkippedFields(TypedDict):
    """Fields of an evaluation for skipped samples."""

    skipped: int
    skipped_names: tuple[str, ...]


@contextmanager
def skip_hint(bad: str) -> Iterator[None]:
    """Add to the error of an unreadable image or cloud how to leave it out.

    Args:
        bad: policy for unreadable samples, `fail` or `skip`.

    Raises:
        DataError: a sample cannot be read.

    Example:
        >>> with skip_hint("fail"):
        ...     raise ImageDecodeError("a.jpg", "the file is empty (0 bytes)", "empty")
        Traceback (most recent call last):
        ...
        vitrail.errors.DataError: a.jpg: the file is empty (0 bytes).
        Mend it (`vitrail data check DATA` lists everything), or leave it out: --bad skip (bad="skip").
    """
    try:
        yield
    except (ImageDecodeError, PointFileError) as error:
        if bad != "fail":
            raise
        cure = 'Mend it (`vitrail data check DATA` lists everything), or leave it out: --bad skip (bad="skip").'
        raise DataError(f"{error}.\n{cure}") from error


def skipped_fields(ids: Sequence[str]) -> SkippedFields:
    """Return the count and the first names of skipped samples as fields of an evaluation.

    Example:
        >>> skipped_fields(["a.jpg"])
        {'skipped': 1, 'skipped_names': ('a.jpg',)}
    """
    return {"skipped": len(ids), "skipped_names": tuple(ids[:NAMED])}


def skipped_names_text(count: int, names: Sequence[str]) -> str:
    """Join the first names, with the number of the others.

    Example:
        >>> skipped_names_text(3, ["a.jpg", "b.jpg"]), skipped_names_text(1, ["a.jpg"])
        ('a.jpg, b.jpg and 1 more', 'a.jpg')
    """
    rest = count - len(names)
    return ", ".join(names) + (f" and {rest:,} more" if names and rest else "")


def skipped_sentence(count: int, names: Sequence[str], noun: str = "image") -> str:
    """Return a sentence on the skipped samples, with a leading space; empty if there are none.

    Example:
        >>> skipped_sentence(1, ["a.jpg"]), skipped_sentence(0, [])
        (' 1 image cannot be used and is left out: a.jpg.', '')
    """
    if not count:
        return ""
    which = f": {skipped_names_text(count, names)}" if names else ""
    return f" {left_out(count, noun)}{which}."


def skipped_fact(count: int, names: Sequence[str]) -> dict[str, str]:
    """Return the row of skipped samples for the settings of an evaluation; empty if there are none.

    Example:
        >>> skipped_fact(2, ["a.jpg"]), skipped_fact(0, [])
        ({'left out': '2 unusable: a.jpg and 1 more'}, {})
    """
    which = f": {skipped_names_text(count, names)}" if names else ""
    return {"left out": f"{count:,} unusable{which}"} if count else {}
