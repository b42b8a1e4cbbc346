"""Write a program as a file of ONNX, OpenVINO or PyTorch, with preprocessing and class names inside."""

import json
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from vitrail.errors import VitrailError
from vitrail.export.program import Program, quiet
from vitrail.export.traced_sizes import compare_by_traced_sizes

METADATA = "vitrail"
"""Key of the metadata in each file: a JSON object with `preprocess`, `labels`, `variant`, `sizes`."""

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2"}


def write_program(program: Program, target: str, path: Path, metadata: dict[str, Any]) -> list[Path]:
    """Write a program; return its files.

    Args:
        program: an exported program.
        target: `onnx`, `openvino` or `pt2`.
        path: the file, with the suffix of the target.
        metadata: plain values that the file carries.

    Raises:
        VitrailError: a library is missing, or it cannot write the program.
    """
    text = json.dumps(metadata)
    with quiet():
        return _WRITERS[target](program, path, text)


def _onnx(program: Program, path: Path, metadata: str) -> list[Path]:
    onnx = required("onnx")
    required("onnxscript")
    try:
        with compare_by_traced_sizes():  # operations are decomposed in a second trace
            built: Any = torch.onnx.export(program.exported, (), dynamo=True, verbose=False, input_names=["images"])
    except Exception as error:  # the exporter wraps failures of many kinds
        raise VitrailError(f"PyTorch's ONNX exporter cannot write this program: {_cause(error)}") from error
    proto = built.model_proto
    proto.metadata_props.add(key=METADATA, value=metadata)
    external = proto.ByteSize() >= 2**31  # the limit of a protobuf message
    onnx.save(proto, str(path), save_as_external_data=external, location=f"{path.name}.data" if external else None)
    return [path, path.with_name(f"{path.name}.data")] if external else [path]


def _openvino(program: Program, path: Path, metadata: str) -> list[Path]:
    openvino = required("openvino")
    with tempfile.TemporaryDirectory() as folder:
        middle = Path(folder) / "model.onnx"  # OpenVINO reads more operations from ONNX than from PyTorch's programs
        _onnx(program, middle, metadata)
        try:
            model = openvino.convert_model(str(middle))
        except Exception as error:  # as above
            raise VitrailError(f"OpenVINO cannot convert this program: {_cause(error)}") from error
    model.set_rt_info(metadata, METADATA)
    openvino.save_model(model, str(path), compress_to_fp16=False)
    return [path, path.with_suffix(".bin")]


def _pt2(program: Program, path: Path, metadata: str) -> list[Path]:
    torch.export.save(program.exported, path, extra_files={METADATA: metadata})
    return [path]


_WRITERS: dict[str, Callable[[Program, Path, str], list[Path]]] = {
    "onnx": _onnx,
    "openvino": _openvino,
    "pt2": _pt2,
}


def required(name: str) -> Any:
    """Return an optional library.

    Raises:
        VitrailError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise VitrailError(f"{name} is not installed. Install it with: pip install {name}") from error


def _cause(error: Exception) -> str:
    """Return the first line of the innermost cause."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
