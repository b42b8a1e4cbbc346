"""Export models, verify them, and print the table of docs/export.md.

    python benchmarks/export.py swin_tiny_patch4_window7_224 vit_base_patch16_224 --to onnx openvino
    python benchmarks/export.py --every                  # a small model of every family, ONNX and OpenVINO
    python benchmarks/export.py --every --only gpt2 nat  # of some of them
    python benchmarks/export.py --every --to onnx        # without OpenVINO

Weights are random, as the time does not depend on them. With `--every` the OpenVINO file comes from the ONNX one,
as `vitrail export` does, so both share the trace; its seconds are those of conversion and verification.
"""

import argparse
import importlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch

from vitrail.errors import VitrailError
from vitrail.export.export import Exported, export
from vitrail.export.formats import openvino_of_onnx
from vitrail.export.metadata import read_metadata
from vitrail.export.program import Program
from vitrail.export.runtime import open_runtime
from vitrail.export.verify import verify
from vitrail.models import create_model, find
from vitrail.models import task_of as published_task

MODELS = ("vit_base_patch16_224", "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "convnext_tiny")
_VIT = (("depth", 1), ("dim", 24), ("num_heads", 2), ("patch_size", 8))
_SWIN = (("depths", (1, 1, 1, 1)), ("dim", 8), ("num_heads", (1, 1, 1, 1)), ("window_size", 4))
_DETECTOR = {"backbone_config": _VIT, "channels": 8, "hidden": 16, "image_size": 64, "num_classes": 3}
_DENSE = {"backbone": "swin_tiny_patch4_window7_224", "backbone_config": _SWIN, "image_size": 64, "num_classes": 3}
DENSE: dict[str, dict[str, Any]] = {
    "faster_rcnn": _DETECTOR,
    "mask_rcnn": _DETECTOR,
    "upernet": {**_DENSE, "channels": 8, "auxiliary_channels": 8},
    "segformer_b0": {**_DENSE, "channels": 8},
    "fpn_segmenter": {**_DENSE, "channels": 8},
    "swinir_light_x2": {"depths": (2,), "dim": 12, "num_heads": 2},
    "swin2sr_light_x2": {"depths": (2, 1), "dim": 12, "num_heads": 2, "window_size": 4},
    "pointnet_parts": {"dim": 8, "global_dim": 16, "num_classes": 3},
}


class Named(NamedTuple):
    """A model to export: its name in the table and what makes it."""

    name: str
    make: Callable[[], Any]


def row(name: str, target: str, done: Exported) -> str:
    """Return a row of the table."""
    sizes = ", ".join(f"{size} {axis}" for axis, size in done.sizes.items())
    seconds = " + ".join(f"{each:.1f}" for each in done.seconds.values())
    error = max(each.error for each in done.compared)
    why = f" ({done.reason.splitlines()[0][:90]})" if done.reason else ""
    return f"| {name} | {target} | {sizes}{why} | {seconds} = {sum(done.seconds.values()):.0f} | {error:.1e} |"


def refused(name: str, target: str, error: Exception) -> str:
    """Return the row of a model without a file."""
    return f"| {name} | {target} | refused: {str(error).splitlines()[0][:160]} | | |"


def measure(name: str, target: str, model: Any) -> str:
    """Export one model to a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return row(name, target, export(model, target, Path(folder) / "model"))
        except VitrailError as error:
            return refused(name, target, error)


def measure_both(name: str, model: Any, convert: bool = True) -> Iterator[str]:
    """Export one model to ONNX, and convert that file to OpenVINO if asked to."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        try:
            done = export(model, "onnx", folder / "model.onnx")
        except Exception as error:  # noqa: BLE001 - a table has a row for whatever fails
            yield refused(name, "onnx", error)
            return
        yield row(name, "onnx", done)
        if not convert:
            return
        began = perf_counter()
        try:
            files = openvino_of_onnx(done.files[0], folder / "model.xml", read_metadata(done.files[0]) or {})
            wrote = perf_counter()
            compared = verify(open_runtime("openvino", files[0]), _as_exported(model, done))
            if differing := [str(each) for each in compared if not each.good]:
                raise VitrailError(f"differs: {differing[0]}")
        except Exception as error:  # noqa: BLE001 - as above
            yield refused(name, "openvino", error)
            return
        seconds = {"write": wrote - began, "verify": perf_counter() - wrote}
        yield row(name, "openvino", Exported(files, done.sizes, done.reason, compared, seconds))


def _as_exported(model: Any, done: Exported) -> Program:
    """Return what a file is compared with: the model at the sizes of the file, without another trace."""
    from vitrail.export.program import program_spec

    nothing: Any = None
    return Program(nothing, program_spec(model), "any" in done.sizes.values(), done.reason)


def every() -> Iterator[Named]:
    """Yield a small model of every family: the first of it in the tests' tables."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "models"))
    images, texts = importlib.import_module("small_models").SMALL, importlib.import_module("small_texts")
    points = importlib.import_module("test_point_models")
    rows: list[tuple[str, dict[str, Any]]] = [
        *((one.variant, one.overrides) for one in images.values()),
        *texts.SMALL.values(),
        *((variant, {"num_classes": 5, **fields}) for variant, fields in points.SMALL.items()),
        ("point_transformer_engel_parts", points.PARTS),
        *DENSE.items(),
    ]
    seen = set[str]()
    for variant, fields in rows:
        family = find(variant).__name__.rpartition(".")[2]
        if family not in seen:
            seen.add(family)
            yield Named(family, partial(_made, variant, fields))


def _made(variant: str, fields: dict[str, Any]) -> Any:
    model = create_model(variant, **fields).eval()
    model.task = model.task or published_task(variant)
    return model


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--to", nargs="+", help="formats (default: onnx; with --every onnx and openvino)")
    parser.add_argument("--every", action="store_true")
    parser.add_argument("--only", nargs="+", default=(), help="families of --every")
    parser.add_argument("--skip", type=int, default=0, help="families of --every that were measured before")
    words = parser.parse_args()
    torch.manual_seed(0)
    if not words.every:
        for name in words.models:
            for target in words.to or ["onnx"]:
                print(measure(name, target, create_model(name).eval()), flush=True)
        return
    began = perf_counter()
    for number, one in enumerate(every()):
        if number >= words.skip and (not words.only or one.name in words.only):
            try:
                for line in measure_both(one.name, one.make(), "openvino" in (words.to or ["openvino"])):
                    print(line, flush=True)
            except VitrailError as error:
                print(refused(one.name, "onnx", error), flush=True)
    print(f"{perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
