"""A model repository of the Triton inference server: an ONNX model and its configuration.

NAME/
  config.pbtxt     inputs, outputs, dynamic batching
  labels.txt       class names, if there are any
  1/model.onnx     version 1
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vitrail.errors import VitrailError

MOST = 64
"""Most inputs of a batch that Triton forms."""
WAIT = 2000
"""Microseconds that a request waits for others."""

_TYPES = {"float32": "TYPE_FP32", "int64": "TYPE_INT64"}


def triton_repository(folder: Path, metadata: dict[str, Any], write_onnx: Callable[[Path], list[Path]]) -> list[Path]:
    """Write the folder of a model; return its files, the ONNX model first.

    Args:
        folder: the model's folder, whose name is the model's in Triton.
        metadata: names and shapes of the tensors, and class names.
        write_onnx: writes the ONNX model to a path and returns its files.

    Raises:
        VitrailError: the folder holds something else.
    """
    version = folder / "1"
    if folder.exists() and any(each.name not in ("1", "config.pbtxt", "labels.txt") for each in folder.iterdir()):
        raise VitrailError(f"{folder} holds other files. Choose a new folder; its name becomes the model's in Triton.")
    version.mkdir(parents=True, exist_ok=True)
    files = write_onnx(version / "model.onnx")
    config = folder / "config.pbtxt"
    config.write_text(triton_config(folder.name, metadata), encoding="utf-8")
    files.append(config)
    if metadata["labels"]:
        names = folder / "labels.txt"
        names.write_text("".join(f"{' '.join(name.split())}\n" for name in metadata["labels"]), encoding="utf-8")
        files.append(names)
    return files


def triton_config(name: str, metadata: dict[str, Any]) -> str:
    """Return the text of `config.pbtxt`.

    Triton adds the batch dimension itself, so it is left out; a dimension that may vary is -1.

    Example:
        >>> images = {"name": "images", "shape": ["batch", 3, "height", 8], "dtype": "float32"}
        >>> "dims: [ 3, -1, 8 ]" in triton_config("pets", {"inputs": [images], "outputs": [], "labels": None})
        True
    """
    lines = [f"name: {json.dumps(name)}", 'platform: "onnxruntime_onnx"', f"max_batch_size: {MOST}"]
    for kind in ("inputs", "outputs"):
        blocks = [_tensor(each, bool(metadata["labels"]) and kind == "outputs") for each in metadata[kind]]
        lines.append(f"{kind.removesuffix('s')} [\n" + ",\n".join(blocks) + "\n]")
    lines.append(f"dynamic_batching {{\n  max_queue_delay_microseconds: {WAIT}\n}}")
    return "\n".join(lines) + "\n"


def _tensor(tensor: dict[str, Any], labelled: bool) -> str:
    dims = ", ".join(str(-1 if isinstance(each, str) else each) for each in tensor["shape"][1:])
    kind = _TYPES[tensor["dtype"]]
    lines = [f"    name: {json.dumps(tensor['name'])}", f"    data_type: {kind}", f"    dims: [ {dims} ]"]
    if labelled and len(tensor["shape"]) == 2:
        lines.append('    label_filename: "labels.txt"')
    return "  {\n" + "\n".join(lines) + "\n  }"
