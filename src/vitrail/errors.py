"""Errors for users: each message has the value given, the values accepted, and a remedy.

Every error a user can cause is a `VitrailError`. The command line prints its message without a traceback and exits
with its `exit_code`; it is a `ValueError` for users of the library.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from itertools import takewhile


class VitrailError(ValueError):
    """Invalid input: an unknown name, a wrong shape, a missing file."""

    exit_code = 2


class DataError(VitrailError):
    """Invalid data: an image that does not decode, a folder without classes, a damaged checkpoint."""

    exit_code = 3


class ResourceError(VitrailError):
    """The machine ran out of something: disk, memory."""

    exit_code = 4


def nearest(got: str, valid: Iterable[str], count: int = 3) -> list[str]:
    """Return the `valid` names most similar to `got`, best first.

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


# Minimum similarity of a suggestion, and its maximum distance to the best one.
_LEAST, _BESIDE = 0.66, 0.2


def _likeness(got: str, name: str) -> float:
    """Return the similarity of two names, between 0 and 1.

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
    """Return whether all parts, words or numbers, are prefixes of parts of the other name, in order."""
    parts, others = (re.findall(r"[a-z]+|[0-9]+", text) for text in (typed, whole))
    rest = iter(others)
    return len(parts) > 1 and all(any(other.startswith(part) for other in rest) for part in parts)


def unknown(
    kind: str, got: str, valid: Iterable[str], hint: str = "", also: Mapping[str, str] | None = None
) -> VitrailError:
    """Build the error for an unknown name, with the nearest valid names.

    Args:
        kind: kind of the name, such as `model`.
        got: the name.
        valid: the valid names.
        hint: lines to add.
        also: aliases from other libraries, mapped to names in `valid`.

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
