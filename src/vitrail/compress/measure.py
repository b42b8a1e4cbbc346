"""Figures of a model before and after: weights, multiply-adds, bytes on disk, latency in one interleaved run."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitrail.bench.interleaved_timing import Timings, alternate
from vitrail.bench.statistics import Quantiles
from vitrail.errors import VitrailError
from vitrail.fused.optimize import optimize
from vitrail.inference.flops import counted_macs, meta_inputs
from vitrail.parts.quantized_linear import stored_weights

CLEAR = 1.05
"""Least speedup, at the lower quartile, that is called faster."""

STEADY = 2.0
"""Most that the upper quartile of a speedup may be of the lower one; more is other work on the machine."""


class Figures(NamedTuple):
    """Sizes of a model.

    Args:
        parameters: number of weights.
        multiply_adds: for one input; None if they cannot be counted.
        size: bytes of the tensors of its folder.
    """

    parameters: int
    multiply_adds: int | None
    size: int


def figures(model: nn.Module, count: bool = True) -> Figures:
    """Return the sizes of a model.

    Args:
        model: the model.
        count: whether to count multiply-adds, which takes a pass on the meta device.

    Example:
        >>> from vitrail.models import create_model
        >>> figures(create_model("vit_tiny_patch16_224"))._replace(multiply_adds=None)
        Figures(parameters=5717416, multiply_adds=None, size=22869664)
    """
    parameters = sum(value.numel() for value in model.parameters()) + stored_weights(model)
    return Figures(
        parameters,
        counted_macs(model)[0] if count else None,
        sum(value.nbytes for value in model.state_dict().values()),
    )


class Latency(NamedTuple):
    """Time of one call before and after, in one interleaved run.

    Args:
        before: seconds of the uncompressed model.
        after: seconds of the compressed one.
        speedup: ratio, round by round.
        how: whether both ran optimized.
    """

    before: Quantiles
    after: Quantiles
    speedup: Quantiles
    how: str

    @property
    def steady(self) -> bool:
        """Whether the quartiles of the ratio are near enough to each other to mean anything."""
        return self.speedup.high <= STEADY * self.speedup.low

    @property
    def verdict(self) -> str:
        """Return whether the compressed model is faster: not if the quartiles of the ratio reach 1."""
        if not self.steady:
            return "unclear, as other work disturbed the timing"
        if self.speedup.low >= CLEAR:
            return "faster"
        return "slower" if self.speedup.high <= 1 / CLEAR else "not faster"


def measure_latency(
    before: nn.Module, after: nn.Module, batch: int = 1, rounds: int = 7, seconds: float = 0.3
) -> Latency:
    """Time two models of one input type in turns, both as `vitrail.optimize` makes them, or both plain.

    Args:
        before: the uncompressed model.
        after: the compressed one.
        batch: inputs in a call.
        rounds: turns of each.
        seconds: least length of a turn.

    Raises:
        VitrailError: the models take no inputs that can be made up here.
    """
    calls, how = _calls({"before": before, "after": after}, batch)
    times: dict[str, Timings] = alternate(calls, rounds, seconds)
    ratio = times["after"].times_as_fast(times["before"])
    return Latency(times["before"].spread, times["after"].spread, ratio, how)


def _calls(models: Mapping[str, nn.Module], batch: int) -> tuple[dict[str, Callable[[], object]], str]:
    fast, how = _optimized(models)
    inputs = example_inputs(next(iter(models.values())), batch)

    def call(model: nn.Module) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                answer = model(*inputs)
            if inputs[0].device.type == "cuda":
                torch.cuda.synchronize()
            return answer

        return run

    return {name: call(model) for name, model in fast.items()}, how


def _optimized(models: Mapping[str, Any]) -> tuple[dict[str, nn.Module], str]:
    try:
        fast = {name: optimize(model) for name, model in models.items()}
    except VitrailError:
        return dict(models), "plain"
    left = fast["after"].unconverted if "after" in fast else {}
    rest = f", {sum(left.values())} parts of the compressed model in PyTorch" if left else ""
    return dict(fast), f"optimized, {fast[next(iter(fast))].precision}{rest}"


def example_inputs(model: nn.Module, batch: int) -> list[Tensor]:
    """Return inputs of a model: noise for images, zeros for token ids.

    Example:
        >>> from vitrail.models import create_model
        >>> example_inputs(create_model("vit_tiny_patch16_224", depth=1, image_size=32), 2)[0].shape
        torch.Size([2, 3, 32, 32])
    """
    device = next(model.parameters()).device
    made = []
    for given in meta_inputs(model, None):
        shape = (batch, *given.shape[1:])
        whole = given.dtype == torch.long
        made.append(torch.zeros(shape, dtype=torch.long, device=device) if whole else torch.rand(shape, device=device))
    return made
