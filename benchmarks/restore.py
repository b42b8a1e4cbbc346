"""Optimized restorers beside eager and compiled PyTorch and OpenVINO: interleaved times of an image, peak memory.

    python benchmarks/restore.py --models swinir_light_x2 swinir_classical_x2 --side 256 --rounds 5

Each round runs every candidate once, in turn, so that a slow phase of the machine slows all of them. Peak memory is
that of a process of its own for each candidate, less what the process holds before the image. OpenVINO and the compiled
form are left out, with the reason, if they are not installed or fail.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

import vitrail
from vitrail.errors import VitrailError

CANDIDATES = ("eager", "optimized", "compiled", "openvino")


def build(kind: str, name: str, side: int) -> Callable[[torch.Tensor], Any]:
    """Return a candidate, warmed up."""
    torch.manual_seed(0)
    model: Any = vitrail.create_model(name).eval()
    image = torch.rand(1, model.config.in_channels, side, side)
    run: Any = model
    if kind == "optimized":
        run = vitrail.optimize(model, "fp32")
    elif kind == "compiled":
        run = torch.compile(model)
    elif kind == "openvino":
        openvino = import_module("openvino")

        program = openvino.compile_model(openvino.convert_model(model, example_input=image), "CPU")
        run = lambda x: torch.from_numpy(program(x.numpy())[0])  # noqa: E731
    with torch.inference_mode():
        run(image)
    return run


def peak(kind: str, name: str, side: int) -> None:
    """Print the peak memory of one image in MiB; runs in a process of its own."""
    with torch.inference_mode():
        run = build(kind, name, 64)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run(torch.rand(1, 3, side, side))
    print(json.dumps((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def peak_of(kind: str, name: str, side: int) -> float | None:
    """Measure peak memory in a process of its own."""
    words = [sys.executable, __file__, "--peak", kind, "--models", name, "--side", str(side)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 and done.stdout else None


def compare(name: str, side: int, rounds: int, candidates: list[str]) -> None:
    """Print a table of one model."""
    runs: dict[str, Any] = {}
    for kind in candidates:
        try:
            runs[kind] = build(kind, name, side)
        except (ImportError, RuntimeError, VitrailError) as reason:  # a peer that cannot run here is named
            print(f"{name} {kind}: left out ({str(reason).splitlines()[0] if str(reason) else type(reason).__name__})")
    image, seconds = torch.rand(1, 3, side, side), {kind: [] for kind in runs}
    with torch.inference_mode():
        truth = runs["eager"](image)
        for _ in range(rounds):
            for kind, run in runs.items():
                start = time.perf_counter()
                run(image)
                seconds[kind].append(time.perf_counter() - start)
        for kind, run in runs.items():
            off = float((run(image) - truth).abs().max())
            memory = peak_of(kind, name, side)
            said = "-" if memory is None else f"{memory:,.0f} MiB"
            print(f"{name:22} {kind:10} {statistics.median(seconds[kind]):8.3f} s {said:>12}  difference {off:.1e}")


def main() -> None:
    """Parse the flags and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["swinir_light_x2", "swinir_classical_x2"])
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--candidates", nargs="+", default=list(CANDIDATES), choices=CANDIDATES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", choices=CANDIDATES)
    flags = parser.parse_args()
    if flags.peak:
        peak(flags.peak, flags.models[0], flags.side)
        return
    print(f"{torch.get_num_threads()} threads, {flags.side} x {flags.side} in, median of {flags.rounds} rounds")
    for name in flags.models:
        compare(name, flags.side, flags.rounds, flags.candidates)


if __name__ == "__main__":
    main()
