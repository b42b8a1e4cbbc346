"""Widths of Transformers with different token mixers, found so that all cost the same.

Each mixer is tried at several widths C; at each, the hidden width of the MLPs is found by bisection; of the widths that
meet the budget, the one is taken whose MLP is nearest to the usual ratio.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import nn

from vitrail.bench.interleaved_timing import alternate
from vitrail.errors import VitrailError
from vitrail.inference.cost import multiply_adds
from vitrail.inference.flops import Uncounted
from vitrail.study.images import StudyImages
from vitrail.study.mixer_catalogue import MIXERS
from vitrail.study.small_models import assemble, pre_norm_block

WIDTHS = (12, 16, 24, 32, 40, 48, 56, 64)
RATIO = 2.0
TOLERANCE = 0.02
REFERENCE = "self-attention"
BUDGETS = ("parameters", "multiply-adds", "latency")


class Width(NamedTuple):
    """Widths of one model.

    Args:
        dim: channels C.
        hidden: hidden channels of the MLPs.
        share: cost as a multiple of the budget.
    """

    dim: int
    hidden: int
    share: float


class Shape(NamedTuple):
    """Properties that all models of a comparison share.

    Args:
        depth: blocks.
        patch_size: side of a patch in pixels.
        dim: channels of the reference.
    """

    depth: int = 4
    patch_size: int = 3
    dim: int = 32


def build(mixer: str, data: StudyImages, shape: Shape, dim: int, hidden: int) -> nn.Module:
    """Build a classifier with one token mixer in every block."""
    side = -(-data.side // shape.patch_size)
    made = [MIXERS[mixer](dim, side, i) for i in range(shape.depth)]
    return assemble(data, dim, [pre_norm_block(dim, one, hidden=hidden) for one in made], shape.patch_size)


def counted(model: nn.Module, data: StudyImages, budget: str) -> float:
    """Return parameters, or multiply-adds of one image."""
    if budget == "parameters":
        return float(sum(parameter.numel() for parameter in model.parameters()))
    image = torch.zeros(1, data.channels, data.side, data.side, device="meta")
    return float(sum(multiply_adds(model, [image], "all").values()))


@lru_cache(maxsize=128)
def fit(mixer: str, data: StudyImages, shape: Shape, budget: str) -> Width:
    """Find the widths at which a mixer costs as much as the reference.

    Args:
        mixer: a name in `MIXERS`.
        data: gives the size of the images.
        shape: the shared properties.
        budget: one of `BUDGETS`.

    Raises:
        VitrailError: no width comes within 2 %.
    """
    if budget == "latency":
        return _fit_latency(mixer, data, shape)
    goal = counted(build(REFERENCE, data, shape, shape.dim, int(RATIO * shape.dim)), data, budget)
    found = [w for dim in WIDTHS if (w := _bisect(mixer, data, shape, dim, budget, goal)) is not None]
    if not found:
        raise VitrailError(f"No width of {mixer} comes within {TOLERANCE:.0%} of the {budget} of {REFERENCE}.")
    return min(found, key=lambda width: abs(width.hidden / width.dim - RATIO))


def _bisect(mixer: str, data: StudyImages, shape: Shape, dim: int, budget: str, goal: float) -> Width | None:
    """Return the hidden width at one C; cost is linear in it, so two counts give it and a third confirms it."""

    def cost(hidden: int) -> float:
        with torch.random.fork_rng(devices=[]):
            return counted(build(mixer, data, shape, dim, hidden), data, budget)

    try:
        low, high = cost(8), cost(108)
    except Uncounted:
        raise
    except VitrailError:
        return None  # a width that the mixer does not take
    hidden = round(8 + (goal - low) * 100 / (high - low))
    if hidden < 4:
        return None
    share = cost(hidden) / goal
    return Width(dim, hidden, share) if abs(share - 1) <= TOLERANCE else None


def _fit_latency(mixer: str, data: StudyImages, shape: Shape, tries: int = 5) -> Width:
    """Change the MLPs until the measured time of a batch, by turns with the reference, is equal."""
    images = data.train[:32]
    reference = build(REFERENCE, data, shape, shape.dim, int(RATIO * shape.dim)).eval()
    hidden, best = int(RATIO * shape.dim), Width(shape.dim, 0, float("inf"))
    for _ in range(tries):
        model = build(mixer, data, shape, shape.dim, hidden).eval()
        share, per_channel = _time_shares(reference, model, images, hidden)
        if abs(share - 1) < abs(best.share - 1):
            best = Width(shape.dim, hidden, share)
        if abs(share - 1) <= TOLERANCE:
            break
        hidden = min(max(4, round(hidden - (share - 1) / per_channel)), 1024)
    return best


def _time_shares(reference: nn.Module, model: nn.Module, images: Any, hidden: int) -> tuple[float, float]:
    """Return the time as a multiple of the reference's, and how much of it one hidden channel takes."""
    calls: dict[str, Callable[[], Any]] = {"reference": lambda: reference(images), "model": lambda: model(images)}
    with torch.no_grad():
        times = alternate(calls, rounds=7, seconds=0.05)
    share = times["reference"].times_as_fast(times["model"]).median
    return share, max(0.3 * share / hidden, 1e-4)  # MLPs take about a third of the time; the tries correct it
