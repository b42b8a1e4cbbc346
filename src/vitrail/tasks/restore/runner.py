"""The choice between a restorer and its optimized form, on one probe tile."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from vitrail.errors import VitrailError
from vitrail.fused.auto_optimize import check_own_precision
from vitrail.fused.optimize import optimize
from vitrail.parts.model import Model
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.results import Notify

AGREEMENT = 1e-4
"""Largest difference in fp32, relative to the range of the outputs."""
PROBE = 64
"""Side of the probe tile in pixels, rounded up to windows."""


class ChosenModel(str):
    """A line about the model that runs, with its compute precision.

    Args:
        line: the line.
        precision: such as `fp32`.
    """

    precision: str

    def __new__(cls, line: str, precision: str) -> "ChosenModel":
        made = super().__new__(cls, line)
        made.precision = precision
        return made


def choose_runner(
    model: Model, precision: str, fast: bool, count: int | None, notify: Notify
) -> Callable[[Tensor], Tensor]:
    """Return the model, or its optimized form if that agrees and is faster on a random tile.

    Args:
        model: a restorer on its device.
        precision: `fp32`, or one of the optimized form.
        fast: whether the optimized form may be used.
        count: number of images of the job; for none there is nothing to choose.
        notify: receives a `ChosenModel`.

    Raises:
        VitrailError: another precision than fp32 was asked for, and the model has no such form.
    """
    check_own_precision(model, precision)
    if not fast or count is None or hasattr(model, "unconverted"):  # or it is an optimized or exported one
        if precision not in ("fp32", "auto"):
            raise VitrailError(f"--precision {precision} needs the optimized model: leave --no-optimize out.")
        return model
    side = -(-PROBE // model.multiple) * model.multiple
    probe = torch.rand(1, model.config.in_channels, side, side, generator=torch.Generator().manual_seed(0))
    with inference_mode_for(model) as device:
        run, line, used = _compared(model, probe.to(device), precision)
    notify(ChosenModel(line, used))
    return run


def _compared(model: Model, probe: Tensor, precision: str) -> tuple[Callable[[Tensor], Tensor], str, str]:
    kind: Any = precision
    try:
        form: Any = optimize(model, kind)
    except VitrailError as reason:
        if precision not in ("fp32", "auto"):
            raise
        return model, f"plain model in fp32: {str(reason).splitlines()[0]}", "fp32"
    plain, usual = _timed(model, probe)
    output, quick = _timed(form, probe)
    off = float((output - plain).abs().max() / plain.abs().max().clamp(min=1e-9))
    if form.precision == "fp32" and off > AGREEMENT:
        return model, f"plain model in fp32: the optimized one differs by {off:.1e}", "fp32"
    if quick >= usual and precision in ("fp32", "auto"):
        return model, f"plain model in fp32: the optimized one takes {quick / usual:.1f} times as long", "fp32"
    line = f"optimized model in {form.precision}: {usual / quick:.1f}x, largest relative difference {off:.1e}"
    return form, line, form.precision


def _timed(run: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, float]:
    """Return the output and the least seconds of two runs, after one to warm up."""
    run(images)
    times, output = [], images
    for _ in range(2):
        start = perf_counter()
        output = run(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        times.append(perf_counter() - start)
    return output, min(times)
