"""Checkpoint metadata: from the header of our safetensors files, or from a `config.json`.

Tensors alone do not determine the number of heads, the preprocessing and the class names.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vitrail.errors import DataError
from vitrail.parts.model import Model
from vitrail.preprocess import FILTERS, IMAGENET_MEAN, IMAGENET_STD, Preprocess, from_processor
from vitrail.weights.checkpoint_io import HEADER, RawCheckpoint
from vitrail.weights.keymap import Format
from vitrail.weights.peer_fields import carried_arguments, timm_name, unknown_fields, unsupported_fields

_FREE = ("num_classes", "in_channels", "drop_path", "preprocess")
"""Fields that follow from the data or are chosen by a run."""


@dataclass(frozen=True)
class Metadata:
    """Checkpoint metadata.

    Args:
        fields: fields of our config.
        preprocess: the evaluation protocol.
        labels: the names of the classes.
        complete: whether all fields are present, so that none is taken from a variant.
        notes: metadata that could not be parsed.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] | None = None
    complete: bool = False
    notes: tuple[str, ...] = ()


def read_metadata(checkpoint: RawCheckpoint, form: Format) -> Metadata:
    """Read the metadata of a checkpoint in our format, or in that of the library of its key names."""
    said = checkpoint.config
    fields, labels, preprocess = (said.get(key) for key in ("config", "labels", "preprocess"))
    states = form.states if "model_type" in said else None
    whole = isinstance(fields, dict) and checkpoint.stated is not None
    if not whole and states is None:
        return _timm_metadata(said, form.families)
    protocol, notes = (preprocess, ()) if isinstance(preprocess, dict) else _protocol(checkpoint.folder)
    protocol = Preprocess.from_dict(protocol) if isinstance(protocol, dict) else protocol
    if isinstance(fields, dict) and whole:
        return Metadata(fields, protocol, tuple(labels) if isinstance(labels, list) else None, True, notes)
    assert states is not None
    return Metadata(states(said), protocol, _names(said.get("id2label")), notes=notes)


def override_words(fields: Mapping[str, Any], config: object) -> list[str]:
    """Return the fields that differ from a config as words for `--set`, without those that follow from the data.

    Example:
        >>> from types import SimpleNamespace
        >>> config = SimpleNamespace(dim=96, depths=(1,), num_classes=2)
        >>> override_words({"dim": 48, "depths": [2, 2], "num_classes": 5}, config)
        ['dim=48', 'depths=2,2']
    """
    pairs = {name: (_plain(value), getattr(config, name)) for name, value in fields.items() if hasattr(config, name)}
    return [f"{name}={_word(value)}" for name, (value, own) in pairs.items() if name not in _FREE and value != own]


def _plain(value: Any) -> Any:
    """Return a list of JSON as a tuple."""
    return tuple(map(_plain, value)) if isinstance(value, list) else value


def _word(value: Any) -> str:
    return ",".join(map(str, value)) + "," * (len(value) == 1) if isinstance(value, tuple) else str(value)


def _timm_metadata(said: Mapping[str, Any], families: Iterable[str]) -> Metadata:
    """Read timm's `config.json`: overrides of the variant, evaluation protocol, names of the classes.

    The files of older versions of timm have the fields of `pretrained_cfg` beside the others, and call the names
    `labels`.
    """
    fields, cfg = carried_arguments(said, families), said.get("pretrained_cfg")
    if timm_name(said) is not None and "pretrained_cfg" not in said and any(key in said for key in _PROTOCOL):
        cfg = said
    cfg = cfg if isinstance(cfg, dict) else {}
    labels = next((one for one in (said.get("label_names"), cfg.get("label_names"), said.get("labels")) if one), None)
    names = tuple(map(str, labels)) if isinstance(labels, list) else _names(labels)
    return Metadata(fields, _timm_protocol(cfg) if cfg else None, names)


_PROTOCOL = ("input_size", "mean", "std", "crop_pct", "crop_mode", "interpolation")
_CROPS = ("center", "squash")


def _timm_protocol(cfg: Mapping[str, Any]) -> Preprocess | None:
    """Read the evaluation protocol of timm's `pretrained_cfg`, with timm's defaults for what it leaves out.

    Raises:
        DataError: a field has no value that is supported here.
    """
    if all(cfg.get(key) is None for key in _PROTOCOL):
        return None
    size, mode = cfg.get("input_size") or [3, 224, 224], cfg.get("crop_mode") or "center"
    crop, filter_ = cfg.get("crop_pct") or 0.875, cfg.get("interpolation") or "bicubic"
    mean, std = cfg.get("mean") or IMAGENET_MEAN, cfg.get("std") or IMAGENET_STD
    square = isinstance(size, list | tuple) and len(size) == 3 and size[1] == size[2]
    if mode not in _CROPS or not square:
        raise DataError(
            f"timm's config.json has crop_mode={mode} and input_size={size}, which are not supported.\n"
            "Square images with crop_mode center or squash are; edit the file if that is what you want."
        )
    if filter_ not in FILTERS:
        raise DataError(
            f"timm's config.json has interpolation={filter_}, which is not supported: {', '.join(FILTERS)} are."
        )
    if not all(_are_numbers(values) for values in (size[1:], [crop], mean, std)):
        raise DataError(
            f"timm's config.json has input_size={size}, crop_pct={crop}, mean={mean} and std={std};\n"
            "three sizes, one number and a list of numbers for each of the last two are needed."
        )
    return Preprocess(
        size=int(size[1]),
        crop=float(crop),
        interpolation=str(filter_),
        mean=tuple(float(value) for value in mean),
        std=tuple(float(value) for value in std),
        crop_mode=mode,
    )


def _are_numbers(values: Any) -> bool:
    """Return whether a value is a list of positive numbers, or of zeros."""
    return isinstance(values, list | tuple) and all(isinstance(one, int | float) and one >= 0 for one in values)


def header_of(model: Model) -> dict[str, str]:
    """Return our entry for a safetensors header, which other libraries ignore."""
    values = asdict(model.config)
    said = {"variant": model.variant, "config": values, "labels": getattr(model, "labels", None)}
    if "preprocess" in values:
        values["image_size"] = values.pop("preprocess")["size"]
        said["preprocess"] = model.preprocess.to_dict()
    return {HEADER: json.dumps(said)}


def contradictions(config: Mapping[str, Any], form: Format, ours: object) -> list[str]:
    """Return the fields of transformers' `config.json` that contradict the config `ours`."""
    if form.describe is None or "model_type" not in config:
        return []
    return unsupported_fields(config, form.describe(ours), _carried(config, form, ours))


def unknown(config: Mapping[str, Any], form: Format, ours: object) -> list[str]:
    """Return the fields of transformers' `config.json` that are not known here."""
    if form.describe is None or "model_type" not in config:
        return []
    return unknown_fields(config, form.describe(ours), _carried(config, form, ours))


def _carried(config: Mapping[str, Any], form: Format, ours: object) -> frozenset[str]:
    """Return the fields that our config takes over; the user may give other values."""
    fields = {"layer_norm_eps"} if hasattr(ours, "norm_eps") or hasattr(ours, "last_norm_eps") else set()
    return frozenset(fields)


def _protocol(folder: Path | None) -> tuple[Preprocess | None, tuple[str, ...]]:
    """Read the evaluation protocol of a folder, if it has one."""
    if folder is None or not (folder / Preprocess.file).is_file():
        return None, ()
    try:
        fields = json.loads((folder / Preprocess.file).read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        return None, (f"images are preprocessed as for the variant: {Preprocess.file} is not JSON, {error}",)
    if not isinstance(fields, dict):
        return None, (f"images are preprocessed as for the variant: {Preprocess.file} holds no object",)
    if "size" not in fields:
        return None, (f"images are preprocessed as for the variant: {Preprocess.file} states no size",)
    return from_processor(fields), ()


def _names(id2label: Any) -> tuple[str, ...] | None:
    """Return the names of the classes in order; transformers writes `LABEL_0`... if there are none."""
    if not isinstance(id2label, dict) or set(id2label) != {str(number) for number in range(len(id2label))}:
        return None
    names = tuple(str(id2label[str(number)]) for number in range(len(id2label)))
    return None if names == tuple(f"LABEL_{number}" for number in range(len(names))) else names
