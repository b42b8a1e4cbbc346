"""Format detection: library, architecture and variants of a checkpoint."""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitrail.errors import DataError
from vitrail.models import catalogue, create_model, family_of, make_config
from vitrail.models.published import PUBLISHED
from vitrail.weights.foreign import foreign_name
from vitrail.weights.formats import FORMATS, before_pooling
from vitrail.weights.infer_config import has_sizes_of
from vitrail.weights.keymap import ConvertedState, Format

Shapes = Mapping[str, tuple[int, ...]]


class Detected(NamedTuple):
    """A checkpoint's format, and its tensors under our names.

    Args:
        format: the best matching format.
        mapped: the tensors converted from that format.
    """

    format: Format
    mapped: ConvertedState


def detect(theirs: Mapping[str, Tensor], origin: str = "the checkpoint") -> Detected:
    """Find the format that matches most keys of a checkpoint.

    Raises:
        DataError: it is of an architecture outside the catalogue, or no format matches; the message shows some keys.
    """
    foreign = foreign_name({key: tuple(value.shape) for key, value in theirs.items()})
    if foreign is not None:
        raise DataError(
            f"{origin} is a checkpoint of {foreign}, an architecture that is not in the catalogue.\n"
            "See what is: vitrail models. An architecture of your own: docs/token_mixer.md."
        )
    candidates = [Detected(one, one.read(theirs)) for one in FORMATS if one.marked(theirs)]
    if not candidates:
        raise DataError(_unrecognised(theirs, origin))
    return min(candidates, key=lambda one: len(one.mapped.unexpected) + len(one.mapped.incomplete))


_BESIDE = ("criterion", "loss", "metric", "accuracy", "train_acc", "val_acc", "test_acc", "n_averaged", "ema_decay")
_AVERAGED = ("ema", "teacher", "averaged", "swa")


def narrow(theirs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Leave out the other tensors of training scripts: losses, metrics, a second network under another prefix.

    A prefix is taken if the keys after it are a whole model of a known format; averaged weights come first.

    Args:
        theirs: tensors of a checkpoint.

    Returns:
        The tensors of the model, and notes on the omitted ones; all tensors if none is found.
    """
    if any(_is_whole(one, theirs) for one in FORMATS if one.marked(theirs)):
        return dict(theirs), []
    inside = {key: value for key, value in theirs.items() if not key.lower().startswith(_BESIDE)}
    if len(inside) < len(theirs) and any(_is_whole(one, inside) for one in FORMATS if one.marked(inside)):
        return inside, [f"left out {_few([key for key in theirs if key not in inside])}"]
    for prefix in _prefixes(theirs):
        inside = {key.removeprefix(prefix): value for key, value in theirs.items() if key.startswith(prefix)}
        if any(_is_whole(one, inside) for one in FORMATS if one.marked(inside)):
            rest = [key for key in theirs if not key.startswith(prefix)]
            return inside, [f"took {prefix!r} off {len(inside)} keys", f"left out {_few(rest)}"]
    return dict(theirs), []


def _prefixes(theirs: Mapping[str, Tensor]) -> list[str]:
    """Return the prefixes of one to three names that a fifth of the keys share, averaged weights first."""
    counts: Counter[str] = Counter()
    for key in theirs:
        parts = key.split(".")[:-1]
        counts.update(".".join(parts[: n + 1]) + "." for n in range(min(3, len(parts))))
    shared = [prefix for prefix, count in counts.items() if count * 5 >= len(theirs) and count < len(theirs)]
    return sorted(shared, key=lambda prefix: (not any(word in prefix for word in _AVERAGED), -counts[prefix]))


def _is_whole(form: Format, tensors: Mapping[str, Tensor]) -> bool:
    """Return whether a format maps every key; computed without data."""
    if not form.families:  # our own names, which one rule maps
        return {key.partition(".")[0] for key in tensors} <= {"backbone", "head"}
    mapped = form.read({key: value.to("meta") for key, value in tensors.items()})
    return not mapped.unexpected and not mapped.incomplete


def _few(keys: list[str]) -> str:
    return f"{', '.join(keys[:3])}" + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def looks_like(ours: Mapping[str, Tensor], families: Iterable[str] = ()) -> list[str]:
    """Return the variants whose tensors have these keys and shapes, the closest first.

    The head, the channels of the image and the sizes of position tables may differ: they can be adapted. Of variants
    with the same trunk, that with the most similar head comes first.

    Args:
        ours: tensors under our names.
        families: the architectures to try; all if empty.
    """
    families = tuple(families)
    shapes = {before_pooling(key): tuple(value.shape) for key, value in ours.items()}
    ranked = []
    words = any(key.endswith("embedding.words.weight") for key in shapes)
    heads = {key.split(".")[1] for key in shapes if key.startswith("head.")}
    classifier = not heads or "linear" in heads
    for name in catalogue():
        if (families and family_of(name) not in families) or _is_text(name) != words:
            continue
        if classifier and _is_dense(name):
            continue
        if name in PUBLISHED and not has_sizes_of(shapes, trunk_config(name)):
            continue
        differences = _differences(shapes, shapes_of(name))
        if differences is not None:
            ranked.append(((differences, _head_differences(shapes, shapes_of(name))), name))
    return [name for _, name in sorted(ranked, key=lambda pair: pair[0])]  # stable: the catalogue's order breaks ties


def _is_text(name: str) -> bool:
    return name in PUBLISHED and PUBLISHED[name].tokens is not None


def trunk_config(name: str) -> Any:
    """Return the config that the width and depth of a variant are in: of a dense model its backbone's."""
    config = make_config(name)
    return make_config(config.backbone, **dict(config.backbone_config)) if _is_dense(name) else config


def _is_dense(name: str) -> bool:
    """Return whether a variant is a decoder on a backbone that it names."""
    return isinstance(getattr(make_config(name), "backbone", None), str)


@cache
def shapes_of(name: str) -> Shapes:
    """Return key and shape of each tensor of a variant, without allocating tensors."""
    with torch.device("meta"):
        return {before_pooling(key): tuple(value.shape) for key, value in create_model(name).state_dict().items()}


def adaptable(key: str) -> bool:
    """Return whether a tensor may have another size than the model's: head, input channels, position tables.

    Example:
        >>> adaptable("head.linear.weight"), adaptable("backbone.norm.weight")
        (True, False)
    """
    return key.startswith("head.") or key.endswith((".table", _input_weight(key)))


def _input_weight(key: str) -> str:
    """Return `key` if it is the weight of the first layer, whose input is the image."""
    return key if key.startswith("backbone.embedding.") and key.endswith(".weight") else "\0"


def _differences(shapes: Shapes, expected: Shapes) -> int | None:
    """Return the number of tensors to adapt, or None if the shapes cannot be adapted."""
    trunk = {key for key in expected if not key.startswith("head.")}
    if {key for key in shapes if not key.startswith("head.")} != trunk:
        return None
    count = 0
    for key in trunk:
        if shapes[key] != expected[key]:
            if not adaptable(key) or len(shapes[key]) != len(expected[key]) or shapes[key][-1] != expected[key][-1]:
                return None
            count += 1
    return count


def _head_differences(shapes: Shapes, expected: Shapes) -> int:
    """Return the number of keys that only one of two heads has; 0 if there is no head to compare."""
    found, wanted = ({key for key in each if key.startswith("head.")} for each in (shapes, expected))
    return len(found ^ wanted) if found else 0


def _unrecognised(theirs: Mapping[str, Tensor], origin: str) -> str:
    """Return the message for a checkpoint of no known format."""
    some = [f"{key} {tuple(value.shape)}" for key, value in list(theirs.items())[:3]]
    known = sorted({one.name for one in FORMATS})
    return (
        f"{origin} is in no format that we know: {len(theirs)} tensors, the first are\n"
        f"{', '.join(some)}.\n"
        f"Known: {', '.join(known)}, for {', '.join(sorted({name for one in FORMATS for name in one.families}))}."
    )
