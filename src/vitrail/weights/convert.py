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

from vitrail.durable import make_folder, write_file
from vitrail.errors import VitrailError
from vitrail.models import create_model, family_of, make_config
from vitrail.weights.detect import Detected, detect, looks_like, shapes_of
from vitrail.weights.folder import is_model_folder, load_model, save_model
from vitrail.weights.formats import FORMATS, written
from vitrail.weights.huggingface import write_huggingface_folder
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
        source: a file, a folder or `hf:org/name@revision`. A model folder brings its config, class names and protocol.
        to: `vitrail` for a model folder, or a library's name for a file with its key names.
        out: the folder, or a file ending in `.safetensors`, `.pth`, `.pt`, `.bin` or `.npz`. For `huggingface` either:
            a folder is one that transformers loads as it is.
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
    built, also = _build(checkpoint, found, model)
    form, tensors = written(to, family_of(built.variant), built.state_dict(), built.config)
    if to == "vitrail":
        save_model(built, out, command=command)
    elif out.suffix in _ENDINGS:
        write_tensor_file(out, tensors)
    else:
        write_huggingface_folder(out, form, tensors, built)
    origin, came_as, notes = checkpoint.origin, found.format.name, checkpoint.notes
    return Conversion(origin, came_as, built.variant, also, _replaced(built), to, out, len(tensors), notes)


def _build(checkpoint: Checkpoint, found: Detected, model: str | None) -> tuple[Any, list[str]]:
    """Build the model that a checkpoint is of, and name the other variants that it could be of."""
    if checkpoint.folder is not None and is_model_folder(checkpoint.folder) and model in (None, checkpoint.stated):
        return load_model(checkpoint.folder), []
    names = looks_like(found.mapped.tensors, found.format.families)
    name = _choose(model, names, checkpoint, found.format.name)
    overrides = differing_fields(found.mapped.tensors, name)
    built = create_model(name, **overrides)
    load_weights(built, checkpoint)
    return built, [n for n in names if n != name and differing_fields(found.mapped.tensors, n) == overrides]


def _replaced(model: Any) -> dict[str, Any]:
    """Return the fields in which the config of a model is not its variant's."""
    own, published = vars(model.config), vars(make_config(model.variant))
    fields = {field: value for field, value in own.items() if value != published[field] and field != "preprocess"}
    size = own["preprocess"].size
    return fields if size == published["preprocess"].size else {**fields, "image_size": size}


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
    reach = "kernel_size" if hasattr(config, "kernel_size") else "window_size"
    found: dict[str, Any] = {"num_classes": len(ours.get("head.linear.weight", ()))}
    if (first := _first_convolution(name)) in ours:
        found["in_channels"] = ours[first].shape[1]
    for key, value in ours.items():
        if key.endswith(".position.table"):
            found[reach] = (round(len(value) ** 0.5) + 1) // 2
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
    make_folder(path.parent)
    write_file(path, stream.getvalue())


def _first_convolution(name: str) -> str:
    """Return the key of the weight that meets the channels of the picture, or nothing where it has another place."""
    kernels = (key for key, shape in shapes_of(name).items() if len(shape) == 4)
    return next((key for key in kernels if key.startswith("backbone.embedding.patches.")), "")


def _image_size(table: Tensor, name: str) -> int:
    """Return the picture size that a position table of a variant was learned at."""
    size = make_config(name).preprocess.size
    expected = next(shape[1] for key, shape in shapes_of(name).items() if key.endswith(".table"))
    prefix = expected - int(expected**0.5) ** 2  # one or two tokens beside a square of cells
    old, new = round((expected - prefix) ** 0.5), round(max(table.shape[1] - prefix, 0) ** 0.5)
    return size // old * new


def _check_out(to: str, out: Path) -> None:
    """Refuse a place that does not suit what is to be written, before the work is done."""
    names = {one.name for one in FORMATS if one.writes} - {"vitrail", "huggingface"}
    if to in names and out.suffix not in _ENDINGS:
        raise VitrailError(
            f"--out {out} needs an ending that says what kind of file to write: {', '.join(sorted(_ENDINGS))}."
        )
    if to == "huggingface" and out.suffix not in _ENDINGS and out.is_file():
        raise VitrailError(f"--out {out} is a file. Name a folder, or a file ending in .safetensors.")
    if to == "vitrail" and (out.suffix in _ENDINGS or out.is_file()):
        raise VitrailError(f"--to vitrail writes a model folder; --out {out} names a file. Leave the ending out.")
