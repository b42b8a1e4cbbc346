"""Write a program as a file of ONNX, OpenVINO, PyTorch, ExecuTorch or Triton, with preprocessing and names inside."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import fx

from vitrail.errors import VitrailError
from vitrail.export.libraries import required
from vitrail.export.metadata import METADATA
from vitrail.export.onnx_operations import onnx_translations
from vitrail.export.program import Program, quiet
from vitrail.export.stored_sizes import store_sizes
from vitrail.export.traced_sizes import compare_by_traced_sizes
from vitrail.export.triton import triton_repository
from vitrail.tasks.program import TensorSpec


def write_program(program: Program, target: str, path: Path, description: dict[str, Any]) -> list[Path]:
    """Write a program; return its files, the one that a runtime opens first.

    Args:
        program: an exported program.
        target: `onnx`, `openvino`, `pt2`, `executorch` or `triton`.
        path: the file, with the suffix of the target; a folder for `triton`.
        description: plain values that the file carries; names and shapes of the tensors are added.

    Raises:
        VitrailError: a library is missing, or it cannot write the program.
    """
    metadata = {
        **description,
        "inputs": [_stated(program, each) for each in program.spec.inputs],
        "outputs": [_stated(program, each) for each in program.spec.outputs],
        "sizes": program.sizes,
    }
    with quiet():
        return _WRITERS[target](program, path, metadata)


def _stated(program: Program, tensor: TensorSpec) -> dict[str, Any]:
    """Return name and shape of a tensor; a dimension is a number, or the name of one that may vary."""
    own = {} if program.any_size else program.spec.own()
    shape = [own.get(each, each) if isinstance(each, str) else each for each in tensor.shape]
    return {"name": tensor.name, "shape": shape, "dtype": tensor.dtype}


def _onnx(program: Program, path: Path, metadata: dict[str, Any]) -> list[Path]:
    onnx = required("onnx")
    required("onnxscript")
    names: dict[str, Any] = {
        "input_names": [each.name for each in program.spec.inputs],
        "output_names": [each.name for each in program.spec.outputs],
    }
    try:
        with compare_by_traced_sizes():  # operations are decomposed in a second trace
            built: Any = torch.onnx.export(
                program.exported,
                (),
                dynamo=True,
                verbose=False,
                custom_translation_table=onnx_translations(),
                **names,
            )
    except Exception as error:  # the exporter wraps failures of many kinds
        raise VitrailError(f"PyTorch's ONNX exporter cannot write this program: {_cause(error)}") from error
    proto = built.model_proto
    for values, stated in ((proto.graph.input, metadata["inputs"]), (proto.graph.output, metadata["outputs"])):
        for value, one in zip(values, stated, strict=False):
            name_dimensions(value, one["shape"])
    allow_empty(proto.graph)
    proto.metadata_props.add(key=METADATA, value=json.dumps(metadata))
    external = proto.ByteSize() >= 2**31  # the limit of a protobuf message
    onnx.save(proto, str(path), save_as_external_data=external, location=f"{path.name}.data" if external else None)
    return [path, path.with_name(f"{path.name}.data")] if external else [path]


def allow_empty(graph: Any) -> None:
    """Let computed shapes be those of empty tensors: by default a 0 in the shape of `Reshape` copies a dimension.

    A constant shape with a 0 means the copy, and stays.
    """
    constant = {each.name for each in graph.initializer}
    constant |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] not in constant:
            kept = [each for each in node.attribute if each.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)
            node.attribute.add(name="allowzero", i=1, type=2)  # AttributeProto.INT


def name_dimensions(value: Any, shape: list[int | str]) -> None:
    """Name the dimensions of an ONNX input or output, instead of the tracer's symbols."""
    dims = value.type.tensor_type.shape.dim
    if len(dims) != len(shape):
        raise VitrailError(f"{value.name} has {len(dims)} dimensions, and its task states {len(shape)}.")
    for dim, each in zip(dims, shape, strict=True):
        dim.Clear()
        if isinstance(each, str):
            dim.dim_param = each
        else:
            dim.dim_value = each


def _openvino(program: Program, path: Path, metadata: dict[str, Any]) -> list[Path]:
    with tempfile.TemporaryDirectory() as folder:
        middle = Path(folder) / "model.onnx"  # OpenVINO reads more operations from ONNX than from PyTorch's programs
        _onnx(program, middle, metadata)
        return openvino_of_onnx(middle, path, metadata)


def openvino_of_onnx(source: Path, path: Path, metadata: dict[str, Any]) -> list[Path]:
    """Convert an ONNX file to OpenVINO's format; return the files.

    Raises:
        VitrailError: OpenVINO is not installed, or does not know an operation.
    """
    openvino = required("openvino")
    try:
        model = openvino.convert_model(str(source))
    except Exception as error:  # as above
        raise VitrailError(f"OpenVINO cannot convert this program: {_cause(error)}") from error
    model.set_rt_info(json.dumps(metadata), METADATA)
    openvino.save_model(model, str(path), compress_to_fp16=False)
    return [path, path.with_suffix(".bin")]


def _pt2(program: Program, path: Path, metadata: dict[str, Any]) -> list[Path]:
    if foreign := _foreign_operations(program):
        raise VitrailError(
            f"PyTorch alone cannot run this program: it has no {', '.join(foreign)}.\n"
            "Export it with --to onnx, openvino or triton."
        )
    store_sizes(program.exported)
    try:
        torch.export.save(program.exported, path, extra_files={METADATA: json.dumps(metadata)})
    except Exception as error:  # as above
        path.unlink(missing_ok=True)
        raise VitrailError(f"PyTorch {torch.__version__} cannot save this program: {_cause(error)}") from error
    return [path]


def _foreign_operations(program: Program) -> list[str]:
    """Return the operations of a program that are not PyTorch's own: a file that calls one needs its library."""
    graphs = [each.graph for each in program.exported.graph_module.modules() if isinstance(each, fx.GraphModule)]
    targets = {node.target for graph in graphs for node in graph.nodes}
    names = {each.name() for each in targets if isinstance(each, torch._ops.OpOverload)}
    return sorted(name for name in names if name.partition("::")[0] not in ("aten", "prim", "prims", "higher_order"))


def _executorch(program: Program, path: Path, metadata: dict[str, Any]) -> list[Path]:
    exir = required("executorch.exir", "executorch")
    partition = required("executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch")
    try:
        lowered = exir.to_edge_transform_and_lower(
            program.exported,
            partitioner=[partition.XnnpackPartitioner()],
            constant_methods={METADATA: json.dumps(metadata)},
        )
        content = lowered.to_executorch().buffer
    except Exception as error:  # as above
        raise VitrailError(f"ExecuTorch cannot lower this program: {_cause(error)}") from error
    path.write_bytes(content)
    return [path]


def _triton(program: Program, path: Path, metadata: dict[str, Any]) -> list[Path]:
    return triton_repository(path, metadata, lambda file: _onnx(program, file, metadata))


_WRITERS: dict[str, Callable[[Program, Path, dict[str, Any]], list[Path]]] = {
    "onnx": _onnx,
    "openvino": _openvino,
    "pt2": _pt2,
    "executorch": _executorch,
    "triton": _triton,
}


def _cause(error: Exception) -> str:
    """Return the first line of the innermost cause."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
