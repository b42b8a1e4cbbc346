"""A plan: edits added one by one until a measured aim is reached, within a loss."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple

from vitrail.compress.calibration_data import CalibrationBatch, damage, reference_outputs
from vitrail.compress.compress import compress
from vitrail.compress.measure import Figures, Latency, figures, measure_latency
from vitrail.compress.settings import CompressSettings
from vitrail.compress.width import STEP
from vitrail.edits.blocks import droppable_stages
from vitrail.edits.heads import prunable_heads
from vitrail.edits.hidden import prunable_hidden
from vitrail.edits.width import stream_widths
from vitrail.errors import VitrailError
from vitrail.parts.exported_file import check_layers
from vitrail.parts.model import Model

HEADS, MLP, RANKS, WIDTH = 1 / 6, 1 / 8, 0.1, 1 / 12
"""Shares that one step removes of heads, hidden channels, weights of linear layers, and channels of the stream."""

KEPT_TOKENS = (0.8, 0.7, 0.6, 0.5)
"""Shares of the tokens that steps keep; a larger one is not faster."""

BITS_AFTER: dict[str | None, Literal["8", "4"]] = {None: "8", "8": "4"}
"""Bits of weights one notch further."""

GAIN = 1.01
"""Least gain of speed for which a step is taken."""

MOST = 0.9
"""Most that is removed of heads and hidden channels."""


class Aim(NamedTuple):
    """Targets of a plan.

    Args:
        kind: `target` (speedup), `size` (bytes) or `latency` (seconds).
        value: the number.
        batch: inputs of a call that is timed.
    """

    kind: str
    value: float
    batch: int = 1

    @classmethod
    def parse(cls, kind: str, text: str, batch: int = 1) -> "Aim":
        """Read a number with its unit.

        Raises:
            VitrailError: it is no such number.

        Example:
            >>> Aim.parse("size", "5MB"), Aim.parse("latency", "10 ms").value, Aim.parse("target", "2x").value
            (Aim(kind='size', value=5000000.0, batch=1), 0.01, 2.0)
        """
        units = {
            "target": {"x": 1.0, "": 1.0},
            "size": {"kb": 1e3, "mb": 1e6, "gb": 1e9, "b": 1.0, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30},
            "latency": {"us": 1e-6, "ms": 1e-3, "s": 1.0},
        }[kind]
        found = re.fullmatch(r"\s*([0-9.]+)\s*([a-zA-Z]*)\s*", text)
        if found is None or found[2].lower() not in units or found[1].count(".") > 1 or not float(found[1] + "0"):
            examples = {"target": "2x", "size": "5MB", "latency": "10ms"}
            raise VitrailError(f"--{kind} is {text!r}; give a number with its unit, such as --{kind} {examples[kind]}.")
        return cls(kind, float(found[1]) * units[found[2].lower()], batch)

    def reached(self, size: int, time: Latency | None) -> bool:
        """Return whether figures reach the aim; a speedup counts by its lower quartile."""
        if self.kind == "size":
            return size <= self.value
        assert time is not None
        fast = time.speedup.low >= self.value if self.kind == "target" else time.after.median <= self.value
        return fast and time.steady


class Tried(NamedTuple):
    """A model that was tried.

    Args:
        settings: the removed parts.
        figures: its sizes.
        damage: its loss, or the change of its outputs, on the probes.
        time: its latency, timed together with the model's; None if it was not measured.
        figure: first figure of the task; None if it was not evaluated.
        lost: loss of that figure.
    """

    settings: CompressSettings
    figures: Figures
    damage: float
    time: Latency | None = None
    figure: float | None = None
    lost: float | None = None


@dataclass
class CompressionPlan:
    """Result of a plan: the model, and all that was tried.

    Args:
        model: the compressed model.
        tried: the steps in order, the unchanged model first.
        chosen: which of them is the model.
        verdict: whether the aim was reached, in a sentence.
        unit: unit of the figure.
    """

    model: Model
    tried: list[Tried]
    chosen: int
    verdict: str
    unit: str

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return columns and rows of the candidates."""
        columns = ["tried", "MB", "GMACs", "speedup", "figure", "lost"]
        scale, sign = (100, " %") if self.unit == "%" else (1, f" {self.unit}".rstrip())
        rows = []
        for number, one in enumerate(self.tried):
            macs, time = one.figures.multiply_adds, one.time
            rows.append(
                [
                    (one.settings.words() or "unchanged") + (" *" if number == self.chosen else ""),
                    f"{one.figures.size / 1e6:.2f}",
                    "" if macs is None else f"{macs / 1e9:.3f}",
                    "" if time is None else f"{time.speedup.median:.2f}x",
                    "" if one.figure is None else f"{scale * one.figure:.2f}{sign}",
                    "" if one.lost is None else f"{scale * one.lost:.2f}",
                ]
            )
        return columns, rows


Evaluate = Callable[[Any], tuple[float, bool, str]]
"""Returns the first figure of a model, whether higher is better, and its unit."""


def plan(
    model: Model,
    aim: Aim,
    probes: Sequence[CalibrationBatch],
    evaluate: Evaluate,
    max_loss: float,
    note: Callable[[str], None] = print,
) -> CompressionPlan:
    """Add edits step by step until the aim is reached or too much is lost.

    At each step every kind of edit is tried one notch further, on the probes: the one with the least damage for its
    saving (bytes, or multiply-adds for a time) is taken. It is then measured: its latency and the model's in one
    interleaved run, and its figure on data. A kind of edit that makes no call faster, or loses too much, is
    taken back and left out.

    Args:
        model: the model.
        aim: the targets.
        probes: batches of data that steer the choice.
        evaluate: measures a model on held-out data.
        max_loss: most that the figure may lose, in points of a share, else in its unit.
        note: receives a line for each step.

    Raises:
        VitrailError: the model has nothing to remove.
    """
    check_layers(model, "its weights are needed to compress it")
    whole, higher, unit = evaluate(model)
    points = 0.01 if unit == "%" else 1.0
    reference, first = reference_outputs(model, probes), figures(model)
    tried = [Tried(CompressSettings(), first, damage(model, probes, reference), None, whole, 0.0)]
    best, chosen, useless, reason = model, 0, set[str](), "nothing more can be removed"
    while True:
        last = tried[chosen]
        step = _best_step(model, last, aim, probes, reference, useless)
        if step is None:
            break
        settings, small, hurt = step
        time = None if aim.kind == "size" else measure_latency(model, small, aim.batch, rounds=5, seconds=0.15)
        if time is not None and time.speedup.median < GAIN * (last.time.speedup.median if last.time else 1.0):
            useless |= _changed(last.settings, settings)
            tried.append(Tried(settings, figures(small), hurt, time))
            note(f"{settings.words()}: {time.speedup.median:.2f}x, not faster than before, taken back")
            continue
        figure = evaluate(small)[0]
        lost = whole - figure if higher else figure - whole
        tried.append(Tried(settings, figures(small), hurt, time, figure, lost))
        note(f"{settings.words()}: {tried[-1].figures.size / 1e6:.2f} MB, lost {lost / points:.2f}")
        if lost > max_loss * points + 1e-12:
            useless |= _changed(last.settings, settings)
            reason = f"every next step would lose more than {max_loss:g}, or gain nothing"
            continue
        best, chosen = small, len(tried) - 1
        if aim.reached(tried[-1].figures.size, time):
            lost_words = f"{lost / points:.2f} {'points' if unit == '%' else unit}".rstrip()
            return CompressionPlan(best, tried, chosen, f"reached, with a loss of {lost_words}", unit)
    if not chosen:
        raise VitrailError(
            f"No edit stays within a loss of {max_loss:g}: {reason}.\n"
            "Allow more with --max-loss and train the result on, or give more --samples."
        )
    return CompressionPlan(best, tried, chosen, f"not reached: {reason}; * is the smallest model within the loss", unit)


def _changed(before: CompressSettings, after: CompressSettings) -> set[str]:
    """Return the names of the settings that differ."""
    return {field.name for field in fields(after) if getattr(before, field.name) != getattr(after, field.name)}


def _best_step(
    model: Model, last: Tried, aim: Aim, probes: Sequence[CalibrationBatch], reference: Any, useless: set[str]
) -> Any:
    """Return the settings, model and damage of the next step with the least damage for its saving, or None."""
    found = []
    for settings in _next_settings(model, last.settings, aim):
        if _changed(last.settings, settings) <= useless:
            continue
        try:
            small = compress(model, settings, probes, lambda text: None)
        except VitrailError:  # no further in this direction
            continue
        saved = _cost(last.figures, aim) - _cost(figures(small, count=aim.kind != "size"), aim)
        if saved > 0:
            hurt = damage(small, probes, reference)
            found.append(((hurt - last.damage) / saved, settings, small, hurt))
    return min(found, key=lambda one: one[0])[1:] if found else None


def _cost(sizes: Figures, aim: Aim) -> float:
    counted = aim.kind != "size" and sizes.multiply_adds is not None
    return float(sizes.multiply_adds or 0) if counted else float(sizes.size)


def _next_settings(model: Model, settings: CompressSettings, aim: Aim) -> list[CompressSettings]:
    """Return the settings one notch further in each direction that the model has."""
    steps = []
    blocks = droppable_stages(model)
    depth = settings.depth or sum(blocks.values())
    if blocks and depth > len(blocks):
        steps.append(replace(settings, depth=depth - 1))
    if prunable_heads(model) and settings.heads + HEADS <= MOST:
        steps.append(replace(settings, heads=settings.heads + HEADS))
    if prunable_hidden(model) and settings.mlp + MLP <= MOST:
        steps.append(replace(settings, mlp=settings.mlp + MLP))
    widths = stream_widths(model)
    width = (settings.width or 1.0) - max(WIDTH, STEP / max(widths.values(), default=1))
    if widths and width > 1 / 3 - 1e-6:
        steps.append(replace(settings, width=round(width, 6)))
    share = settings.rank_share or 1.0
    if share - RANKS > 0.15:
        steps.append(replace(settings, rank_share=round(share - RANKS, 6)))
    if aim.kind == "size" and settings.weights_bits in BITS_AFTER:  # it makes no model faster
        steps.append(replace(settings, weights_bits=BITS_AFTER[settings.weights_bits]))
    if aim.kind != "size" and (fewer := [kept for kept in KEPT_TOKENS if kept < (settings.tokens_keep or 1)]):
        steps.append(replace(settings, tokens_keep=fewer[0]))
    return steps
