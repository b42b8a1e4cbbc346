"""Errors that teach: what we got, what we need, what to do.

Every error a user can cause is a `VitrailError`. The command line prints its message without a traceback and leaves
with its `exit_code`; a library user catches it as the `ValueError` that it is.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from itertools import takewhile


class VitrailError(ValueError):
    """A choice of the user that cannot work: a name, a shape, a file that is not there."""

    exit_code = 2


class DataError(VitrailError):
    """Data that cannot be used: an image that does not decode, a folder without classes, a broken checkpoint."""

    exit_code = 3


class ResourceError(VitrailError):
    """The machine ran out of something: disk, memory."""

    exit_code = 4


def nearest(got: str, valid: Iterable[str], count: int = 3) -> list[str]:
    """Return the `valid` names that look most like `got`, best first.

    Example:
        >>> nearest("swim_tiny", ["swin_tiny", "vit_tiny", "resnet"], count=1)
        ['swin_tiny']
        >>> nearest("vit_tinny", ["dinat_tiny", "vit_tiny_patch16_224"])
        ['vit_tiny_patch16_224', 'dinat_tiny']
        >>> nearest("ViT-B/16", ["vit_base_patch8_224", "vit_base_patch16_224"], count=1)
        ['vit_base_patch16_224']
    """
    names = list(valid)
    scores = {name: _likeness(got, name) for name in names}
    least = max(_LEAST, max(scores.values(), default=0.0) - _BESIDE)
    like = [name for name in scores if scores[name] >= least]
    return sorted(like, key=lambda name: (-scores[name], len(name)))[:count]


# What a name must reach, of 1, and how far it may be behind the best one.
_LEAST, _BESIDE = 0.66, 0.2


def _likeness(got: str, name: str) -> float:
    """Say how much two names look alike, between 0 and 1.

    A typing mistake seldom hits the first letters, so those that are shared count more; and a name may be cut short,
    as a whole or in its parts.
    """
    typed, whole = got.lower().strip("-"), name.lower().strip("-")
    if len(typed) < 2:
        return float(typed == whole)
    close = SequenceMatcher(None, typed, whole).ratio()
    if len(typed) > 3:
        close = max(close, 0.95 * SequenceMatcher(None, typed, whole[: len(typed)]).ratio())
    if (len(typed) > 2 and typed in whole) or _abbreviates(typed, whole):
        close = max(close, 0.8)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(typed[:4], whole, strict=False)))
    return close + 0.1 * shared * (1 - close)


def _abbreviates(typed: str, whole: str) -> bool:
    """Say whether all parts, words or numbers, begin parts of the other name in their order."""
    parts, others = (re.findall(r"[a-z]+|[0-9]+", text) for text in (typed, whole))
    rest = iter(others)
    return len(parts) > 1 and all(any(other.startswith(part) for other in rest) for part in parts)


def unknown(
    kind: str, got: str, valid: Iterable[str], hint: str = "", also: Mapping[str, str] | None = None
) -> VitrailError:
    """Build the error for a name that nobody knows, with the nearest names that somebody does.

    Args:
        kind: what the name would be the name of.
        got: the name.
        valid: the names that there are.
        hint: lines to add.
        also: what others call them, and which of `valid` they mean.

    Example:
        >>> print(unknown("model", "vitt", ["vit", "swin"]))
        Unknown model 'vitt'. Did you mean: vit?
        >>> print(unknown("flag", "lerning_rate", ["--lr", "--data"], also={"learning_rate": "--lr"}))
        Unknown flag 'lerning_rate'. Did you mean: --lr?
    """
    valid, also = sorted(valid), also or {}
    close = list(dict.fromkeys(also.get(name, name) for name in nearest(got, [*valid, *also])))
    if close:
        guess = f"Did you mean: {', '.join(close)}?"
    elif len(valid) <= 30:
        guess = f"Valid: {', '.join(valid)}."
    else:
        guess = f"None of the {len(valid)} that there are looks like it."
    return VitrailError(f"Unknown {kind} '{got}'. {guess}" + (f"\n{hint}" if hint else ""))
