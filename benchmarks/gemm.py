"""Linear layers of the catalogue, `x W^T + b`, against `torch.nn.functional.linear`.

    python benchmarks/gemm.py                                  # fp32 and bf16, batch 1 and 8, one and all threads
    python benchmarks/gemm.py --precisions fp32 --batches 8 --threads 1 --models vit_base_patch16_224
    python benchmarks/gemm.py --shapes 1576,3072,768 392,3072,768 --l2 1048576   # as if the L2 cache had 1 MiB

Every nn.Linear of the models is found by a forward pass on the meta device; each shape (rows, inputs, outputs) is timed
once. The two sides take short turns in rotating order, each turn several calls, so that a busy machine slows down both;
with one thread a call is timed by the thread's own processor time.
The table has microseconds of a call (minimum over the turns), GFLOP/s, and the ratio torch / ours by minimum and by the
median of the turns' ratios; above 1 ours is faster.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from time import perf_counter, thread_time
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as torch_linear

import vitrail
from vitrail.native.build import library, refusal
from vitrail.native.gemm import linear, pack_linear

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MODELS = (
    *("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "vit_base_patch32_224"),
    *("vit_large_patch16_224", "swin_tiny_patch4_window7_224", "swin_base_patch4_window7_224", "mixer_b16_224"),
    *("nat_mini", "nat_tiny", "nat_base", "dinat_s_tiny", "poolformer_s12", "poolformer_m36", "resnetv2_50x1_bit"),
)
HEADER = f"{'shape':<23} {'us ours':>10} {'us torch':>10} {'GF ours':>8} {'GF torch':>8} {'min':>7} {'median':>7}"


class Shape(NamedTuple):
    """Rows, inputs and outputs of a linear layer."""

    rows: int
    inputs: int
    outputs: int


class Times(NamedTuple):
    """Seconds of a call in each turn, ours and torch's."""

    ours: list[float]
    torch: list[float]

    @property
    def by_minimum(self) -> float:
        """Ratio of the fastest turns."""
        return min(self.torch) / min(self.ours)

    @property
    def by_median(self) -> float:
        """Median of the ratios of turns next to each other."""
        return median(theirs / ours for ours, theirs in zip(self.ours, self.torch, strict=True))


def catalogue_shapes(names: Sequence[str]) -> set[Shape]:
    """Collect the linear layers of some models, with the rows of one image."""
    found: set[Shape] = set()

    def note(layer: nn.Module, given: tuple[Tensor], _: Tensor) -> None:
        assert isinstance(layer, nn.Linear)
        found.add(Shape(given[0].numel() // layer.in_features, layer.in_features, layer.out_features))

    for name in names:
        with torch.device("meta"):
            model = vitrail.create_model(name).eval()
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_hook(note)
        with torch.inference_mode():
            model(torch.empty(1, 3, 224, 224, device="meta"))
    return found


def measure(shape: Shape, dtype: torch.dtype, turns: int, seconds: float) -> Times:
    """Time one shape, turn by turn; each turn has as many calls as fill `seconds`."""
    x = torch.randn(shape.rows, shape.inputs).to(dtype)
    weight, bias = torch.randn(shape.outputs, shape.inputs) / shape.inputs**0.5, torch.randn(shape.outputs)
    packed, theirs = pack_linear(weight, bias, dtype), (weight.to(dtype), bias.to(dtype))
    calls: list[Callable[[], Tensor]] = [lambda: linear(x, packed), lambda: torch_linear(x, *theirs)]
    expected = torch_linear(x.float(), weight.to(dtype).float(), bias)
    for call in calls:
        error = ((call().float() - expected).abs().max() / expected.abs().max()).item()
        assert error < (1e-5 if dtype == torch.float32 else 1e-2), (shape, dtype, error)
    times: tuple[list[float], list[float]] = [], []
    for turn in range(turns):
        for side in (0, 1) if turn % 2 else (1, 0):
            times[side].append(_turn(calls[side], seconds))
    return Times(*times)


def _turn(call: Callable[[], Tensor], seconds: float) -> float:
    """Return the shortest of the calls that fit into a turn; the first one, which warms the caches up, is left out."""
    call()
    clock = thread_time if torch.get_num_threads() == 1 else perf_counter
    best, end = float("inf"), perf_counter() + seconds
    while True:
        start = clock()
        call()
        best = min(best, clock() - start)
        if perf_counter() >= end:
            return best


def rows_of_table(
    shapes: Sequence[Shape], dtype: torch.dtype, options: argparse.Namespace
) -> Iterator[tuple[float, str]]:
    """Yield the ratio and the line of each shape."""
    for shape in shapes:
        times = measure(shape, dtype, options.turns, options.seconds)
        flops = 2 * shape.rows * shape.inputs * shape.outputs
        ours, theirs = min(times.ours), min(times.torch)
        size = f"{shape.rows:>6} x {shape.inputs:>5} -> {shape.outputs:<5}"
        line = (
            f"{size} {1e6 * ours:>10.1f} {1e6 * theirs:>10.1f} {flops / ours / 1e9:>8.0f} {flops / theirs / 1e9:>8.0f}"
        )
        yield times.by_minimum, f"{line} {times.by_minimum:>7.2f} {times.by_median:>7.2f}"


@torch.inference_mode()
def main(words: Sequence[str] | None = None) -> int:
    """Measure and print a table for each precision, batch and number of threads, the worst shapes first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="models of the catalogue")
    parser.add_argument("--shapes", nargs="+", help="ROWS,INPUTS,OUTPUTS instead of models")
    parser.add_argument("--precisions", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8], help="images of a batch (default: 1 8)")
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, torch.get_num_threads()}))
    parser.add_argument("--turns", type=int, default=11, help="turns of each side (default: 11)")
    parser.add_argument("--seconds", type=float, default=0.02, help="length of a turn (default: 0.02)")
    parser.add_argument("--l2", type=int, default=0, help="bytes of L2 cache to block for (default: the machine's)")
    options = parser.parse_args(words)
    if options.l2:
        library("gemm").vitrail_set_l2(options.l2)
    given = [Shape(*map(int, shape.split(","))) for shape in options.shapes or ()]
    base = set() if given else catalogue_shapes(options.models)
    for precision in options.precisions:
        reason = refusal(DTYPES[precision])
        if reason is not None:
            print(f"{precision}: {reason}")
            continue
        for threads in options.threads:
            torch.set_num_threads(threads)
            for batch in options.batches:
                shapes = given or sorted(shape._replace(rows=batch * shape.rows) for shape in base)
                print(f"\n{precision}, {'given rows' if given else f'batch {batch}'}, {threads} threads")
                print(HEADER)
                lines = sorted(rows_of_table(shapes, DTYPES[precision], options))
                for _, line in lines:
                    print(line, flush=True)
                low = sum(ratio < 0.95 for ratio, _ in lines)
                print(f"lowest ratio {lines[0][0]:.2f}, {low} of {len(lines)} below 0.95")
                if given:
                    break
    return 0


if __name__ == "__main__":
    sys.exit(main())
