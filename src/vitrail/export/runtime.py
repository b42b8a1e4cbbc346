"""Exported files as models: read back and run by their own runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrail.errors import DataError, VitrailError
from vitrail.export.described import shell_of
from vitrail.export.libraries import required
from vitrail.export.metadata import SUFFIXES, external_files, is_exported, read_metadata
from vitrail.export.program import outputs_of, program_spec, quiet
from vitrail.export.verify import Run
from vitrail.parts.exported_file import outputs_alone
from vitrail.parts.model import Model

__all__ = ["is_exported", "open_exported", "open_runtime"]


def open_exported(path: str | Path) -> Model:
    """Open an exported file as a model: its attributes are those of the model, its forward pass is the file's.

    Attributes:
        runtime: name of the runtime.
        exported_file: the path.
        unconverted: empty: the program runs as it is, and is not optimized.

    Raises:
        DataError: it was not written by `vitrail export`, or is damaged.
        VitrailError: its runtime is not installed, its format can hold code, or an input has another size.
    """
    path = Path(path)
    target = next((name for name, suffix in SUFFIXES.items() if suffix == path.suffix), "")
    if target not in ("onnx", "openvino"):
        raise VitrailError(
            f"{path} is not opened here: {_CLOSED.get(target, 'its format is unknown.')}\n"
            "Use the model folder, or export it with --to onnx."
        )
    run = open_runtime(target, path)
    description = read_metadata(path)
    if description is None:
        raise DataError(
            f"{path} has no metadata of Vitrail: preprocessing and class names are unknown, so its results would be\n"
            f"guesses. Write it with: vitrail export MODEL --to {target}"
        )
    model, spec = shell_of(description, program_spec)
    shell: Any = model
    checked = _checked(run, description["inputs"], path)
    shell.forward = lambda *given, **named: spec.decode(checked(spec.encode(*given, **named)))
    shell.features = _no_features(path)
    if hasattr(shell, "backbone"):
        shell.backbone.forward = shell.features
    if spec.attach is not None:
        spec.attach(shell, checked)
    shell.runtime, shell.unconverted, shell.exported_file = target, (), str(path)
    return shell


_CLOSED = {
    "pt2": "PyTorch loads its programs by pickle, and such a file can run code.",
    "executorch": "it is a program for ExecuTorch's runtime on devices.",
}


def _no_features(path: Path) -> Callable[..., object]:
    def features(*given: object, **named: object) -> object:
        raise outputs_alone(str(path), "features of the backbone are needed")

    return features


def _checked(run: Run, inputs: list[dict[str, Any]], path: Path) -> Run:
    """Return the program, which refuses sizes that the file was not written for."""

    def checked(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for tensor, stated in zip(tensors, inputs, strict=True):
            wrong = [n for n, m in zip(tensor.shape, stated["shape"], strict=True) if m not in (n, str(m))]
            if wrong:
                raise VitrailError(
                    f"{path} takes {stated['name']} of the shape {tuple(stated['shape'])}, got {tuple(tensor.shape)}.\n"
                    "Its architecture or --sizes fixed allows no other size: use the model folder."
                )
        return run(tensors)

    return checked


def open_runtime(target: str, path: Path) -> Run:
    """Open a file in its runtime. A .pt2 file is loaded by pickle, so it must be one that was just written.

    Args:
        target: format of the file.
        path: the file.

    Raises:
        DataError: the runtime cannot read it.
        VitrailError: the runtime is not installed.
    """
    try:
        return _OPENERS[target](path)
    except VitrailError:
        raise
    except Exception as error:  # each runtime has errors of its own
        raise DataError(f"{path} cannot be opened by {target}: {_reason(str(error))}") from error


def _reason(text: str) -> str:
    r"""Return the first line of a runtime's error that is not about its own source.

    Example:
        >>> _reason("Exception from core.cpp:84:\nCheck 'size' failed at xml.cpp:9:\nIncorrect weights!\n")
        'Incorrect weights!'
    """
    lines = text.splitlines() or ["no reason is given"]
    own = ("Exception from ", "Check '")
    return next((line for line in lines if line.strip() and not line.startswith(own)), lines[0])[:300]


def _pt2(path: Path) -> Run:
    with quiet():  # PyTorch logs a traceback and raises an error without a reason
        module = torch.export.load(path).module()

    def run(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return outputs_of(module(*tensors))

    return run


def check_external_files(path: Path) -> None:
    """Refuse an ONNX file that reads its tensors from elsewhere than a regular file beside it.

    A location such as `../../secret` or a link would bring the content of any file into the model's outputs
    (CVE-2024-27318 and others).

    Raises:
        DataError: it does, or it is no ONNX file.
    """
    try:
        names = external_files(path)
    except (OSError, ValueError, IndexError, RecursionError) as error:
        raise DataError(f"{path} cannot be opened by onnx: it is damaged ({error}).") from error
    for name in names:
        beside = path.parent / name
        if name in ("", ".", "..") or Path(name).name != name or "\\" in name or beside.is_symlink():
            raise DataError(f"{path} reads tensors from '{name}'; only a file beside it is allowed.")


def _onnx(path: Path) -> Run:
    check_external_files(path)
    runtime = required("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # failures are raised too
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        arrays = (_plain(each).numpy() for each in tensors)
        found = session.run(None, dict(zip(names, arrays, strict=False)))
        return tuple(torch.from_numpy(each) for each in found)

    return run


def _openvino(path: Path) -> Run:
    tensors = path.with_suffix(".bin")
    if path.is_file() and not tensors.is_file():
        raise DataError(f"{path} keeps its tensors in {tensors}, which is missing.\nCopy both files to one folder.")
    openvino = required("openvino")
    model = openvino.Core().read_model(str(path))
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()

    def run(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        request.infer([_plain(each).numpy() for each in tensors[: len(model.inputs)]], share_inputs=True)
        return tuple(torch.from_numpy(each.data.copy()) for each in request.output_tensors)

    return run


def _executorch(path: Path) -> Run:
    runtime = required("executorch.runtime", "executorch")
    method = runtime.Runtime.get().load_program(str(path)).load_method("forward")
    return lambda tensors: tuple(method.execute([_plain(each) for each in tensors]))


def _plain(tensor: Tensor) -> Tensor:
    """Return a contiguous tensor in fp32, or of integers."""
    return (tensor.float() if tensor.is_floating_point() else tensor).contiguous()


_OPENERS: dict[str, Callable[[Path], Run]] = {
    "onnx": _onnx,
    "triton": _onnx,
    "openvino": _openvino,
    "executorch": _executorch,
    "pt2": _pt2,
}
