"""Optimized segmenters, detectors and restorers against eager and compiled PyTorch and OpenVINO: times, peak memory.

    python benchmarks/dense.py --models upernet_swin_tiny --side 512
    python benchmarks/dense.py --models swinir_light_x2 swinir_classical_x2 --side 256 --memory
    python benchmarks/dense.py --models mask_rcnn_resnet50 runs/detect/bccd/weights/best --side 640

Each round runs every candidate once, in turn, so that a slow phase of the machine slows all of them. OpenVINO gets the
program of `torch.export` for this size; of a trace (`torch.jit.trace`), its scores were 17 % off.

With one thread (OMP_NUM_THREADS=1), times are processor times, which other work on the machine hardly changes.

Peak memory is that of a process of its own for each candidate: of the image, above what the process holds before it,
and of the whole process. A candidate that is not installed or fails is left out, with the reason. The difference is the
largest one from eager, over eager's range; of detectors, the mean difference of scores and the share of boxes found
again (`tasks/detect/answers.py`).
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

import vitrail
from vitrail.errors import VitrailError
from vitrail.models import task_of
from vitrail.tasks.detect.answers import compare_boxes

Run = Callable[[torch.Tensor], Any]


def eager(model: Any, image: torch.Tensor) -> Run:
    """Return the model itself."""
    return model


def channels_last(model: Any, image: torch.Tensor) -> Run:
    """Return the model with convolutions in channels-last memory."""
    last = deepcopy(model).to(memory_format=torch.channels_last)
    return lambda x: last(x.contiguous(memory_format=torch.channels_last))


def compiled(model: Any, image: torch.Tensor) -> Run:
    """Return the model of `torch.compile`."""
    return torch.compile(model)


def optimized(precision: Any) -> Callable[[Any, torch.Tensor], Run]:
    """Return a maker of our optimized model."""
    return lambda model, image: vitrail.optimize(model, precision)


@cache
def converted(model: Any, side: int) -> Any:
    """Return OpenVINO's model of a model, for both precisions."""
    library = import_module("openvino")
    with torch.inference_mode(False), torch.no_grad():
        image = torch.rand(1, model.config.in_channels, side, side)
        return library.convert_model(torch.export.export(model, (image,)))


def openvino(precision: str) -> Callable[[Any, torch.Tensor], Run]:
    """Return a maker of OpenVINO's program in a precision."""

    def make(model: Any, image: torch.Tensor) -> Run:
        library = import_module("openvino")
        settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        program = library.compile_model(converted(model, image.shape[-1]), "CPU", settings)
        return lambda x: torch.from_numpy(program(x.numpy())[0])

    return make


CANDIDATES: dict[str, Callable[[Any, torch.Tensor], Run]] = {
    "eager": eager,
    "channels_last": channels_last,
    "compiled": compiled,
    "openvino": openvino("f32"),
    "openvino_bf16": openvino("bf16"),
    "optimized_fp32": optimized("fp32"),
    "optimized_bf16": optimized("bf16"),
}
OURS = "optimized"


@cache
def model_of(name: str) -> Any:
    """Return a model with random weights, or that of a folder; a random detector of one class finds boxes."""
    torch.manual_seed(0)
    if Path(name).is_dir():
        return vitrail.load_model(name).eval()
    few: Any = {"num_classes": 1} if task_of(name) == "detect" else {}
    return vitrail.create_model(name, **few).eval()


def build(kind: str, name: str, side: int, warm: bool = True) -> Run:
    """Return a candidate, warmed up by one run."""
    image = torch.rand(1, model_of(name).config.in_channels, side, side)
    with torch.inference_mode():
        run = CANDIDATES[kind](model_of(name), image)
        if warm:
            run(image)
    return run


def peak(kind: str, name: str, side: int) -> None:
    """Print the peak memory in MiB of one image, and of the process meanwhile; runs in a process of its own."""
    with torch.inference_mode():
        run = build(kind, name, side if kind in ("compiled", "openvino", "openvino_bf16") else 64)  # made for one size
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
        before = held("VmRSS")
        run(torch.rand(1, model_of(name).config.in_channels, side, side))
    print(json.dumps([held("VmHWM") - before, held("VmHWM")]))


def held(field: str) -> float:
    """Return a field of the process's memory in MiB."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def peak_of(kind: str, name: str, side: int) -> str:
    """Measure peak memory in a process of its own."""
    words = [sys.executable, __file__, "--peak", kind, "--models", name, "--side", str(side)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return "-"
    image, process = json.loads(lines[-1])
    return f"{image:,.0f} MiB of the image, {process:,.0f} MiB of the process"


def difference(got: Any, truth: Any) -> str:
    """Return how far answers are from eager's."""
    if isinstance(truth, list):
        found = compare_boxes(got, truth, "fp32")
        return f"scores {found.error:.1e}, {found.same_decided:.1%} of {found.decided} boxes found again"
    return f"difference {float((got - truth).abs().max()) / float(truth.max() - truth.min()):.1e}"


def compare(name: str, flags: argparse.Namespace) -> None:
    """Print a table of one model."""
    side, candidates = flags.side, flags.candidates
    runs: dict[str, Run] = {}
    for kind in candidates:
        try:
            runs[kind] = build(kind, name, side, warm=not flags.cold)
        except (ImportError, RuntimeError, VitrailError) as reason:  # a peer that cannot run here is named
            print(f"{name} {kind}: left out ({str(reason).splitlines()[0] if str(reason) else type(reason).__name__})")
    if flags.pause:
        input(f"{name}: {', '.join(runs)} are built. Press Enter to start the rounds.\n")
    image, seconds = torch.rand(1, model_of(name).config.in_channels, side, side), {kind: [] for kind in runs}
    last: dict[str, Any] = {}
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    with torch.inference_mode():
        for _ in range(flags.rounds):
            for kind, run in runs.items():
                start = clock()
                last[kind] = run(image)
                seconds[kind].append(clock() - start)
        medians = {kind: statistics.median(each) for kind, each in seconds.items()}
        peer = min((each for kind, each in medians.items() if not kind.startswith(OURS)), default=float("nan"))
        for kind in runs:
            off = difference(last[kind], last[candidates[0]])
            spread = f"[{min(seconds[kind]):.3f}, {max(seconds[kind]):.3f}]"
            over = f"{peer / medians[kind]:6.2f}x the best peer"
            print(f"{name[-20:]:20} {kind:15} {medians[kind]:8.3f} s {spread} {over}  {off}", flush=True)


def main() -> None:
    """Parse the flags and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["upernet_swin_tiny"], help="names, or model folders")
    parser.add_argument("--side", type=int, default=512, help="side of the image")
    parser.add_argument(
        "--candidates", nargs="+", default=list(CANDIDATES), choices=CANDIDATES, help="the first is eager"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of every candidate")
    parser.add_argument("--cold", action="store_true", help="no run before the rounds, for models of many seconds")
    parser.add_argument("--pause", action="store_true", help="wait for Enter before the rounds, for a quiet machine")
    parser.add_argument("--memory", action="store_true", help="measure peak memory instead of time")
    parser.add_argument("--peak", choices=CANDIDATES, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.peak:
        peak(flags.peak, flags.models[0], flags.side)
        return
    print(f"{torch.get_num_threads()} threads, {flags.side} x {flags.side} in, {flags.rounds} rounds", flush=True)
    for name in flags.models:
        if not flags.memory:
            compare(name, flags)
            continue
        for kind in flags.candidates:
            print(f"{name:20} {kind:15} peak {peak_of(kind, name, flags.side)}", flush=True)


if __name__ == "__main__":
    main()
