"""From any library's checkpoint to any other's, or to a model folder; nothing is resized and nothing is lost."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from vitrail.durable import write_file
from vitrail.errors import VitrailError
from vitrail.models import create_model, family_of, make_config
from vitrail.weights.detect import detect, looks_like, shapes_of
from vitrail.weights.folder import save_model
from vitrail.weights.formats import FORMATS, write_as
from vitrail.weights.load import load_weights, read_source
from vitrail.weights.reading import Checkpoint

_ENDINGS = {".safetensors", ".pth", ".pt", ".bin", ".npz"}


@dataclass
class Conversion:
    """What `convert` did.

    Args:
        source: where the weights came from.
        came_as: the library whose names they had.
        model: the variant.
        also: other variants with the same tensors.
        overrides: fields in which the checkpoint differs from the variant.
        went_as: the library whose names were written.
        out: what was written.
        tensors: how many.
        notes: what was done to find the tensors.
    """

    source: str
    came_as: str
    model: str
    also: list[str]
    overrides: dict[str, Any]
    went_as: str
    out: Path
    tensors: int
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        fields = "".join(f", {key}={value}" for key, value in self.overrides.items())
        lines = [f"{self.source}: {self.came_as} weights of {self.model}{fields}"]
        if self.also:
            lines.append(f"  the same tensors fit {', '.join(self.also)}; choose with --model")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join([*lines, f"{self.out}: written for {self.went_as}, {self.tensors} tensors"])


def convert(
    source: str | Path, to: str, out: str | Path, *, model: str | None = None, command: str | None = None
) -> Conversion:
    """Read a checkpoint in any known format and write it in another.

    Args:
        source: a file, a folder or `hf:org/name@revision`.
        to: `vitrail` for a model folder, or a library's name for a file with its key names.
        out: the folder, or a file ending in `.safetensors`, `.pth`, `.pt`, `.bin` or `.npz`.
        model: name of the variant; found by keys and shapes when None.
        command: the command line, for the manifest of a model folder.

    Raises:
        VitrailError: the variant is not the checkpoint's, or the library has no such architecture.
        DataError: the source cannot be read or recognised.
    """
    out = Path(out)
    _check_out(to, out)
    checkpoint = read_source(source)
    found = detect(checkpoint.tensors, checkpoint.origin)
    names = looks_like(found.mapped.tensors, found.format.families)
    name = _choose(model, names, checkpoint, found.format.name)
    overrides = differing_fields(found.mapped.tensors, name)
    built = create_model(name, **overrides)
    load_weights(built, checkpoint)
    tensors = write_as(to, family_of(name), built.state_dict(), built.config)
    if to == "vitrail":
        save_model(built, out, command=command)
    else:
        write_tensor_file(out, tensors)
    also = [other for other in names if other != name and differing_fields(found.mapped.tensors, other) == overrides]
    return Conversion(
        checkpoint.origin, found.format.name, name, also, overrides, to, out, len(tensors), checkpoint.notes
    )


def _choose(model: str | None, names: list[str], checkpoint: Checkpoint, came_as: str) -> str:
    """Choose the variant: the one asked for, the one that the checkpoint states, the one that it looks like."""
    if model is not None:
        family_of(model)  # an unknown name is told with its nearest
        if names and model not in names:
            raise VitrailError(
                f"{checkpoint.origin} looks like {came_as}'s {names[0]}, not like {model}.\n"
                f"Leave --model out, or give one of: {', '.join(names[:4])}."
            )
        return model
    if checkpoint.stated in names:
        return checkpoint.stated
    if not names:
        raise VitrailError(
            f"{checkpoint.origin} has {came_as}'s names, but the sizes of no published variant.\n"
            "Say which variant it is with --model NAME; `vitrail models` lists them."
        )
    return names[0]


def differing_fields(ours: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    """Return the config fields in which a checkpoint differs from a variant, as far as shapes tell.

    Args:
        ours: tensors under our names.
        name: the variant.
    """
    config = make_config(name)
    found: dict[str, Any] = {"num_classes": len(ours.get("head.linear.weight", ()))}
    for key, value in ours.items():
        if key.startswith("backbone.embedding.patches.") and value.ndim == 4:
            found["in_channels"] = value.shape[1]
        if key.endswith(".position.table"):
            found["window_size"] = (round(len(value) ** 0.5) + 1) // 2
        elif key.endswith(".table") and value.ndim == 3:
            found["image_size"] = _image_size(value, name)
    stated = {field: getattr(config, field, None) for field in found} | {"image_size": config.preprocess.size}
    return {field: value for field, value in found.items() if value != stated[field]}


def write_tensor_file(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors in the way that the file's ending names, whole or not at all."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    stream = io.BytesIO()
    if path.suffix == ".safetensors":
        stream.write(save(tensors, metadata={"format": "pt"}))
    elif path.suffix == ".npz":
        np.savez(stream, allow_pickle=False, **{key: value.numpy() for key, value in tensors.items()})
    else:
        torch.save(tensors, stream)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, stream.getvalue())


def _image_size(table: Tensor, name: str) -> int:
    """Return the picture size that a position table of a variant was learned at."""
    size = make_config(name).preprocess.size
    expected = next(shape[1] for key, shape in shapes_of(name).items() if key.endswith(".table"))
    prefix = expected - int(expected**0.5) ** 2  # one or two tokens beside a square of cells
    old, new = round((expected - prefix) ** 0.5), round(max(table.shape[1] - prefix, 0) ** 0.5)
    return size // old * new


def _check_out(to: str, out: Path) -> None:
    """Refuse a place that does not suit what is to be written, before the work is done."""
    names = {one.name for one in FORMATS if one.writes}
    if to != "vitrail" and to in names and out.suffix not in _ENDINGS:
        raise VitrailError(
            f"--out {out} needs an ending that says what kind of file to write: {', '.join(sorted(_ENDINGS))}."
        )
    if to == "vitrail" and (out.suffix in _ENDINGS or out.is_file()):
        raise VitrailError(f"--to vitrail writes a model folder; --out {out} names a file. Leave the ending out.")
