"""Exported files as models: read back and run by their own runtime."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrail.errors import DataError, VitrailError
from vitrail.export.formats import METADATA, SUFFIXES, required
from vitrail.parts.model import ImageModel
from vitrail.preprocess import Preprocess

Run = Callable[[Tensor], Tensor]
"""Images `(B, C, Y, X)` to logits, on a CPU."""


class ExportedClassifier(ImageModel):
    """A classifier in a file of another runtime; it has no parameters of its own and is not optimized.

    Args:
        run: the program.
        metadata: values that the file carries.
        name: of the file.

    Attributes:
        runtime: name of the runtime.
    """

    task = "classify"

    def __init__(self, run: Run, metadata: dict[str, Any], name: str, runtime: str):
        super().__init__()
        self.run, self.variant, self.runtime = run, metadata.get("variant", name), runtime
        self.inputs = Preprocess.from_dict(metadata["preprocess"])
        if metadata.get("labels"):
            self.metadata = {"labels": tuple(metadata["labels"])}

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        return self.run(images.float().contiguous())


def is_exported(path: str) -> bool:
    """Return whether a path is an exported file, by its suffix."""
    return Path(path).suffix in SUFFIXES.values() and Path(path).is_file()


def open_exported(path: str | Path) -> ExportedClassifier:
    """Open an exported file.

    Raises:
        DataError: it was not written by `vitrail export`, or is damaged.
        VitrailError: its runtime is not installed, or its format can hold code.
    """
    path = Path(path)
    if path.suffix == SUFFIXES["pt2"]:
        raise VitrailError(
            f"{path} is a program of PyTorch, which loads it by pickle: such a file can run code, so it is not opened\n"
            "here. Use the model folder, or export it with --to onnx."
        )
    target = next(name for name, suffix in SUFFIXES.items() if suffix == path.suffix)
    try:
        run, text = _OPENERS[target](path)
    except VitrailError:
        raise
    except Exception as error:  # each runtime has errors of its own
        raise DataError(f"{path} cannot be opened by {target}: {str(error).splitlines()[0][:300]}") from error
    if not text:
        raise DataError(
            f"{path} has no metadata of Vitrail: preprocessing and class names are unknown, so its answers would be\n"
            f"guesses. Write it with: vitrail export MODEL --to {target}"
        )
    return ExportedClassifier(run, json.loads(text), path.stem, target)


def _onnx(path: Path) -> tuple[Run, str]:
    runtime = required("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # failures are raised too
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    metadata = session.get_modelmeta().custom_metadata_map.get(METADATA, "")
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0]), metadata


def _openvino(path: Path) -> tuple[Run, str]:
    openvino = required("openvino")
    model = openvino.Core().read_model(str(path))
    metadata = str(model.get_rt_info(METADATA).value) if model.has_rt_info(METADATA) else ""
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()

    def run(images: Tensor) -> Tensor:
        request.infer([images.numpy()], share_inputs=True)
        return torch.from_numpy(request.get_output_tensor(0).data.copy())

    return run, metadata


_OPENERS: dict[str, Callable[[Path], tuple[Run, str]]] = {"onnx": _onnx, "openvino": _openvino}
