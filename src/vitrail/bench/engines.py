"""Inference engines: OpenVINO and ONNX Runtime, with PyTorch's number of threads."""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.bench.candidate import Answer, CandidateUnavailable, Variant, opened
from vitrail.bench.libraries import from_timm

Convert = Callable[[nn.Module, Tensor], Any]


def openvino_ways(model: nn.Module, example: Tensor, precision: str) -> list[Variant]:
    """Return OpenVINO's variants, all threads on one batch: from a traced program, and from an exported one.

    Each converts some models that the other does not, and either may be faster.

    Raises:
        CandidateUnavailable: the images are not on a CPU, or this CPU has no bf16 in OpenVINO.
    """
    _check_cpu(example, "OpenVINO")
    core = opened("openvino").Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise CandidateUnavailable("OpenVINO has no bf16 on this CPU.")
    hint = {"fp32": "f32", "bf16": "bf16"}[precision]

    def way(name: str, convert: Convert) -> Variant:
        return Variant(name, source, lambda module, example: _openvino(core, convert(module, example), hint))

    return [way("traced", _traced), way("exported", _exported)]


def onnxruntime_ways(model: nn.Module, example: Tensor, precision: str) -> list[Variant]:
    """Return ONNX Runtime's variants: fp32, and for bf16 also a program in bf16, which few CPU builds support.

    Raises:
        CandidateUnavailable: the images are not on a CPU.
    """
    _check_cpu(example, "ONNX Runtime")

    def way(dtype: torch.dtype, name: str) -> Variant:
        return Variant(name, source, lambda module, example: _onnxruntime(module.to(dtype), example))

    fp32, bf16 = way(torch.float32, "fp32 program"), way(torch.bfloat16, "bf16 program")
    return [bf16, fp32] if precision == "bf16" else [fp32]


def source(model: nn.Module, example: Tensor) -> nn.Module:
    """Return the module to convert: timm's model, which engines are tuned for, or ours if timm has none."""
    ours: Any = model
    try:
        return from_timm(ours, example.shape[-1])
    except CandidateUnavailable:
        return deepcopy(model)


def _traced(module: nn.Module, example: Tensor) -> Any:
    with _quiet(), torch.inference_mode():
        return opened("openvino").convert_model(module, example_input=example, input=[tuple(example.shape)])


def _exported(module: nn.Module, example: Tensor) -> Any:
    with _quiet(), torch.no_grad():
        return opened("openvino").convert_model(torch.export.export(module, (example,)))


def _openvino(core: Any, program: Any, hint: str) -> Answer:
    options = {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, on all threads
    }
    request = core.compile_model(program, "CPU", options).create_infer_request()

    def answer(images: Tensor) -> Tensor:
        request.infer([images.numpy()], share_inputs=True)
        return torch.from_numpy(request.get_output_tensor(0).data.copy())

    return answer


def _onnxruntime(module: nn.Module, example: Tensor) -> Answer:
    runtime, dtype = opened("onnxruntime"), next(module.parameters()).dtype
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # failures are raised too
    options.add_session_config_entry("session.force_spinning_stop", "1")  # its threads must not spin in others' turns
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        with _quiet(), torch.inference_mode():
            torch.onnx.export(_Fp32(module, dtype), (example,), path, dynamo=True, verbose=False)
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def answer(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: images.numpy()})[0])

    return answer


class _Fp32(nn.Module):
    """Casts to the module's dtype inside the program, so that inputs and outputs are fp32."""

    def __init__(self, module: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, images: Tensor) -> Tensor:
        return self.module(images.to(self.dtype)).float()


def _check_cpu(example: Tensor, engine: str) -> None:
    if example.device.type != "cpu":
        raise CandidateUnavailable(f"{engine} is measured on the CPU only.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings and logs of a converter; failures are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
