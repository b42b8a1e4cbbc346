"""Comparison of an exported file with its model, run by the file's own runtime."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vitrail.errors import VitrailError
from vitrail.export.program import Program, outputs_of
from vitrail.tasks.program import ProgramSpec, TensorSpec

TOLERANCE = 1e-4
"""Largest difference of an output, as a share of the largest value."""

MARGIN = 1e-3
"""Share of the largest value by which the best class must lead for the top-1 to be compared."""

Run = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
"""Input tensors to output tensors, on a CPU."""


class Compared(NamedTuple):
    """One comparison.

    Args:
        sizes: batch and other sizes.
        error: largest difference of an output, as a share of the largest value.
        top1: whether the best class is the same wherever the model decides clearly.
    """

    sizes: tuple[int, ...]
    error: float
    top1: bool

    @property
    def good(self) -> bool:
        """Whether the file agrees."""
        return self.error <= TOLERANCE and self.top1

    def __str__(self) -> str:
        state = "agrees" if self.good else "DIFFERS"
        return f"{' x '.join(map(str, self.sizes))}: {state}, largest error {self.error:.1e}"


def verify(run: Run, program: Program) -> list[Compared]:
    """Compare a file with its model on eight batches and sizes, and on small sizes if the model takes them.

    Args:
        run: the opened file.
        program: the program that was written, with the model in evaluation mode.

    Raises:
        VitrailError: the runtime does not run a shape.
    """
    spec, found = program.spec, []
    small = spec.small_sizes() if program.any_size else []
    for number, sizes in enumerate([*spec.sizes_to_verify(program.any_size), *small]):
        inputs = spec.example(sizes, seed=7 + number)
        with torch.inference_mode():
            want = outputs_of(spec.module(*inputs))
        shown = tuple(sizes.values())
        try:
            with torch.no_grad():
                got = run(inputs)
        except Exception as error:  # each runtime has errors of its own
            reason = str(error).splitlines()[0][:300]
            raise VitrailError(f"The exported file does not run on {' x '.join(map(str, shown))}: {reason}") from error
        found.append(Compared(shown, *_compare_all(got, want, spec)))
    return found


def _compare_all(got: tuple[Tensor, ...], want: tuple[Tensor, ...], spec: ProgramSpec) -> tuple[float, bool]:
    """Return the largest error of all outputs, and whether all clear decisions agree."""
    if spec.agree is not None:
        return spec.agree(got, want)
    each = [compare(*pair) for pair in zip(got, want, spec.outputs, strict=True)]
    return max(error for error, _ in each), all(top1 for _, top1 in each)


def compare(got: Tensor, want: Tensor, output: TensorSpec) -> tuple[float, bool]:
    """Return the largest error as a share of the largest value, and whether clear decisions agree."""
    scale = float(want.abs().max().clamp(min=1e-12))
    if got.shape != want.shape or not bool(torch.isfinite(got).all()):
        return float("inf"), False
    error = float((got - want).abs().max()) / scale
    if output.classes is None:
        return error, True
    best = want.topk(min(2, want.shape[output.classes]), dim=output.classes).values
    clear = (best.select(output.classes, 0) - best.select(output.classes, -1)) > MARGIN * scale
    same = got.argmax(output.classes) == want.argmax(output.classes)
    return error, bool((same | ~clear).all())
