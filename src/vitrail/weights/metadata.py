"""Checkpoint metadata: from the header of our safetensors files, or from a `config.json`.

Tensors alone do not determine the number of heads, the preprocessing and the class names.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vitrail.errors import DataError
from vitrail.preprocess import Preprocess, from_processor
from vitrail.weights.checkpoint_io import HEADER, RawCheckpoint
from vitrail.weights.keymap import Format, renamed

# Fields of a library's config.json that do not change the logits.
_IDLE = {"architectures", "drop_path_rate", "image_size", "layer_norm_eps", "layer_scale_init_value"}


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
        args = said.get("model_args")  # timm's overrides of the variant
        return Metadata(renamed(args, num_heads="num_heads", image_size="img_size") if isinstance(args, dict) else {})
    protocol, notes = (preprocess, ()) if isinstance(preprocess, dict) else _protocol(checkpoint.folder)
    protocol = Preprocess.from_dict(protocol) if isinstance(protocol, dict) else protocol
    if isinstance(fields, dict) and whole:
        return Metadata(fields, protocol, tuple(labels) if isinstance(labels, list) else None, True, notes)
    assert states is not None
    return Metadata(states(said), protocol, _names(said.get("id2label")), notes=notes)


def header_of(model: Any) -> dict[str, str]:
    """Return our entry for a safetensors header, which other libraries ignore."""
    values = asdict(model.config)
    said = {"variant": model.variant, "config": values, "labels": getattr(model, "labels", None)}
    if "preprocess" in values:
        values["image_size"] = values.pop("preprocess")["size"]
        said["preprocess"] = model.preprocess.to_dict()
    return {HEADER: json.dumps(said)}


def contradictions(config: Mapping[str, Any], form: Format, ours: Any) -> list[str]:
    """Return the fields of a library's `config.json` that contradict the config `ours`."""
    if form.describe is None or "model_type" not in config:
        return []
    does = form.describe(ours).items()
    return [f"{key}={config[key]}" for key, value in does if key not in _IDLE and config.get(key, value) != value]


def _protocol(folder: Path | None) -> tuple[Preprocess | None, tuple[str, ...]]:
    """Read the evaluation protocol of a folder, if it has one."""
    if folder is None or not (folder / Preprocess.file).is_file():
        return None, ()
    try:
        return from_processor(json.loads((folder / Preprocess.file).read_bytes())), ()
    except (DataError, AttributeError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        return None, (f"pictures are made ready as for the variant: {reason}",)


def _names(id2label: Any) -> tuple[str, ...] | None:
    """Return the names of the classes in order; transformers writes `LABEL_0`... if there are none."""
    if not isinstance(id2label, dict) or set(id2label) != {str(number) for number in range(len(id2label))}:
        return None
    names = tuple(str(id2label[str(number)]) for number in range(len(id2label)))
    return None if names == tuple(f"LABEL_{number}" for number in range(len(names))) else names
