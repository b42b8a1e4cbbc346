"""What is said by a form that cannot be had."""

from vitrail.native.library import missing


class Kept(Exception):
    """This module stays as it is; the message says why."""


def need(*libraries: str) -> None:
    """Build the compiled libraries of a form, where they are not there yet.

    Raises:
        Kept: one of them cannot be had here.
    """
    reason = missing(*libraries)
    if reason is not None:
        raise Kept(reason)
