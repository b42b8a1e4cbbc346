"""Convert a checkpoint to another library's format or to a model folder, without resizing or loss."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from vitrail.atomic_io import check_writable, check_writable_folder, make_folder, write_file
from vitrail.edits.lora import merge_lora
from vitrail.errors import VitrailError
from vitrail.models import family_of, make_config
from vitrail.parts.model import Model
from vitrail.weights.adapters import ADAPTERS, is_adapter_folder, load_adapters, save_adapters
from vitrail.weights.folder import check_replaceable, save_model
from vitrail.weights.formats import FORMATS, written
from vitrail.weights.from_checkpoint import LoadedModel, from_checkpoint
from vitrail.weights.huggingface import write_huggingface_folder
from vitrail.weights.load import read_source
from vitrail.weights.metadata import header_of

_ENDINGS = {".safetensors", ".pth", ".pt", ".bin", ".npz"}


@dataclass
class ConversionReport:
    """Report of `convert`.

    Args:
        source: source of the weights.
        came_as: library of the source's key names.
        model: the variant.
        also: other variants with the same tensors.
        overrides: fields of the config that differ from the variant.
        went_as: library of the written key names.
        out: the written file or folder.
        tensors: number of tensors.
        notes: steps taken to find the tensors.
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
    source: str | Path,
    to: str,
    out: str | Path,
    *,
    model: str | None = None,
    fields: Mapping[str, Any] | None = None,
    command: str | None = None,
    merge: bool = False,
    base: str | Path | None = None,
) -> ConversionReport:
    """Read a checkpoint in any known format and write it in another.

    Args:
        source: a file, a folder or `hf:org/name@revision`. A model folder brings its config, class names and protocol.
        to: `vitrail` for a model folder, or a library's name for a file with its key names.
        out: the folder, or a file ending in `.safetensors`, `.pth`, `.pt`, `.bin` or `.npz`. For `huggingface` either:
            a folder is one that transformers loads as it is.
        model: name of the variant; detected from metadata, keys and shapes if None.
        fields: fields of the config that cannot be inferred, such as `num_heads`.
        command: the command line, for the manifest of a model folder.
        merge: merge LoRA adapters into plain weights.
        base: checkpoint that the adapters of an adapter folder were trained on.

    Raises:
        VitrailError: the variant is not the checkpoint's, or the library has no such architecture.
        DataError: the source cannot be read or recognised.
    """
    out = Path(out)
    _check_out(to, out)
    if is_adapter_folder(source) or base is not None:
        found, origin = _adapted(source, base), str(source)
    else:
        checkpoint = read_source(source)
        found, origin = from_checkpoint(checkpoint, model, **(fields or {})), checkpoint.origin
    built = merge_lora(found.model) if merge else found.model
    if to == "adapters":
        tensors = len(load_file(save_adapters(built, out) / ADAPTERS))
        return ConversionReport(origin, found.format, built.variant, [], {}, to, out, tensors, found.notes)
    if built.edits and to != "vitrail":
        raise VitrailError(
            f"{source} was changed since it was built ({'; '.join(edit.summary() for edit in built.edits)}), and\n"
            f"{to} has no architecture of that shape. Merge LoRA adapters (--merge), keep it as a model folder,\n"
            f"or export it: vitrail export {source}"
        )
    form, tensors = written(to, family_of(built.variant), built.state_dict(), built.config)
    if to == "vitrail":
        save_model(built, out, command=command)
    elif out.suffix in _ENDINGS:
        write_tensor_file(out, tensors, header_of(built))
    else:
        write_huggingface_folder(out, form, tensors, built)
    return ConversionReport(
        origin, found.format, built.variant, found.also, _replaced(built), to, out, len(tensors), found.notes
    )


def _adapted(folder: str | Path, base: str | Path | None) -> LoadedModel:
    """Load a folder of adapters on its base."""
    if not is_adapter_folder(folder):
        raise VitrailError(f"--base belongs to a folder of adapters, and {folder} is none.")
    if base is None:
        raise VitrailError(f"{folder} holds adapters alone. Name the weights they were trained on: --base FILE")
    return LoadedModel(load_adapters(folder, base), "vitrail")


def _replaced(model: Model) -> dict[str, Any]:
    """Return the fields of a model's config that differ from its variant."""
    own, published = vars(model.config), vars(make_config(model.variant))
    fields = {field: value for field, value in own.items() if value != published[field] and field != "preprocess"}
    if "preprocess" not in own:  # a model of texts
        return fields
    size = own["preprocess"].size
    return fields if size == published["preprocess"].size else {**fields, "image_size": size}


def write_tensor_file(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> None:
    """Write tensors atomically in the format of the file's ending; safetensors keep a header too."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    stream = io.BytesIO()
    if path.suffix == ".safetensors":
        stream.write(save(tensors, metadata={"format": "pt", **(header or {})}))
    elif path.suffix == ".npz":
        np.savez(stream, allow_pickle=False, **{key: value.numpy() for key, value in tensors.items()})
    else:
        torch.save(tensors, stream)
    make_folder(path.parent)
    write_file(path, stream.getvalue())


_ENGINES = {
    ".onnx": "ONNX",
    ".tflite": "TensorFlow Lite",
    ".engine": "TensorRT",
    ".trt": "TensorRT",
    ".mlmodel": "Core ML",
    ".mlpackage": "Core ML",
    ".pb": "TensorFlow",
    ".h5": "Keras",
    ".torchscript": "TorchScript",
    ".ptl": "TorchScript",
}
"""Endings of other engines' files."""


def _check_out(to: str, out: Path) -> None:
    """Check that `out` can be written and suits the format, before the conversion starts."""
    names = {one.name for one in FORMATS if one.writes} - {"vitrail", "huggingface"}
    if to in names and out.suffix not in _ENDINGS:
        raise VitrailError(
            f"--out {out} needs an ending that says what kind of file to write: {', '.join(sorted(_ENDINGS))}."
        )
    if to == "huggingface" and out.suffix not in _ENDINGS and out.is_file():
        raise VitrailError(f"--out {out} is a file. Name a folder, or a file ending in .safetensors.")
    if out.suffix.lower() in _ENGINES:
        raise VitrailError(
            f"--out {out}: {_ENGINES[out.suffix.lower()]} is not written here; convert writes weights.\n"
            "Write a model folder, then: vitrail export FOLDER --to onnx (or openvino, pt2); other engines read ONNX."
        )
    if to == "vitrail" and (out.suffix in _ENDINGS or out.is_file()):
        raise VitrailError(f"--to vitrail writes a model folder; --out {out} names a file. Leave the ending out.")
    if to == "vitrail":
        check_replaceable(out)
    if out.exists() and to != "vitrail" and out.suffix in _ENDINGS:
        check_writable(out)
    else:
        check_writable_folder(out)
