"""Comparison of an exported file with its model, run by the file's own runtime."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.export.program import Program

TOLERANCE = 1e-4
"""Largest difference of a logit, as a share of the largest logit."""

MARGIN = 1e-3
"""Share of the largest logit by which the best class must lead for the top-1 to be compared."""


class Compared(NamedTuple):
    """One comparison.

    Args:
        batch: images.
        height: rows.
        width: columns.
        error: largest difference of a logit, as a share of the largest logit.
        top1: whether the best class is the same wherever the model decides clearly.
    """

    batch: int
    height: int
    width: int
    error: float
    top1: bool

    @property
    def good(self) -> bool:
        """Whether the file agrees."""
        return self.error <= TOLERANCE and self.top1

    def __str__(self) -> str:
        state = "agrees" if self.good else "DIFFERS"
        return f"{self.batch} x {self.height} x {self.width}: {state}, largest error {self.error:.1e}"


def shapes_to_verify(program: Program) -> list[tuple[int, int, int]]:
    """Return eight batches and sizes: the model's own, and others off the window grid if the program takes them."""
    side = program.size
    if not program.any_size:
        return [(batch, side, side) for batch in (1, 2, 3, 4, 5, 7, 8, 16)]
    odd = side // 2 + 13
    others = [(1, side + 32, side), (2, odd, odd), (3, side, odd), (1, odd + 7, side // 2), (2, side // 2, side // 2)]
    return [(1, side, side), (4, side, side), *others, (1, side - 31, side + 5)]


def verify(run: Any, model: nn.Module, program: Program) -> list[Compared]:
    """Compare a file with its model on eight batches and sizes.

    Args:
        run: the opened file, images to logits.
        model: the plain model in evaluation mode.
        program: the program that was written.

    Raises:
        VitrailError: the runtime does not run a shape.
    """
    found = []
    draws = torch.Generator().manual_seed(7)
    for batch, height, width in shapes_to_verify(program):
        images = torch.randn(batch, model.config.in_channels, height, width, generator=draws)  # pyright: ignore
        with torch.inference_mode():
            want = model(images)
        try:
            with torch.no_grad():
                got = run(images)
        except Exception as error:  # each runtime has errors of its own
            reason = str(error).splitlines()[0][:300]
            raise VitrailError(f"The exported file does not run on {batch} x {height} x {width}: {reason}") from error
        found.append(Compared(batch, height, width, *compare(got, want)))
    return found


def compare(got: Tensor, want: Tensor) -> tuple[float, bool]:
    """Return the largest error as a share of the largest logit, and whether clear decisions agree."""
    scale = float(want.abs().max().clamp(min=1e-12))
    if got.shape != want.shape or not bool(torch.isfinite(got).all()):
        return float("inf"), False
    best = want.topk(min(2, want.shape[1]), dim=1).values
    clear = (best[:, 0] - best[:, -1]) > MARGIN * scale
    same = got.argmax(1) == want.argmax(1)
    return float((got - want).abs().max()) / scale, bool((same | ~clear).all())
