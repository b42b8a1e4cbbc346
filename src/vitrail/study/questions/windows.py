"""Window, shift and depth: cost, result, and how far information travels.

"Swin Transformer", section 3.2, equations 1 and 2: MSA costs 4 h w C^2 + 2 (h w)^2 C, W-MSA 4 h w C^2 + 2 M^2 h w C.
"""

from functools import partial
from typing import Any

import torch

from vitrail.bench.interleaved_timing import alternate
from vitrail.grid import Grid
from vitrail.inference.cost import multiply_adds
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.study.charts import Curve, dot_chart, line_chart, with_interval
from vitrail.study.images import load_images
from vitrail.study.intervals import ratio_interval
from vitrail.study.learner import LearnSettings, learn
from vitrail.study.plan import Conclusion, Condition, Results, StudyFigure, StudyOptions, StudyPlan
from vitrail.study.reach import DEPTH, SIDE, mask_figure, mixer, reach, reach_figure, reached
from vitrail.study.sentences import points
from vitrail.study.small_models import assemble, pre_norm_block
from vitrail.tasks.table import Table

KINDS = {"global": (0, False), "window 4, shifted": (4, True), "window 4": (4, False), "window 2, shifted": (2, True)}
SPEED = "speed"
WIDTH, WINDOW = 96, 7


def conditions(options: StudyOptions) -> list[Condition]:
    """Each kind of attention at two depths, and the timing."""
    depths = options.pick((2,), (2, 4))
    arms = [
        Condition(f"{kind}, depth {depth}", {"window": window, "shift": shift, "depth": depth})
        for depth in depths
        for kind, (window, shift) in KINDS.items()
    ]
    return [*arms, Condition(SPEED, {"sides": options.pick((7, 14), (14, 28, 56))})]


def measure(condition: Condition, seed: int, options: StudyOptions) -> dict[str, Any]:
    """Train one arm, or time both kinds of attention."""
    if condition.name == SPEED:
        return _speed(condition["sides"], options)
    data, dim = load_images(options.data, 16, options.pick(64, None)), options.pick(16, 32)
    window, shift = condition["window"], condition["shift"]
    mixers = [mixer(dim, 2, window, window // 2 if shift and i % 2 else 0) for i in range(condition["depth"])]
    model = assemble(data, dim, [pre_norm_block(dim, one) for one in mixers], patch_size=2)
    learned = learn(model, data, LearnSettings(steps=options.pick(4, 150), lr=3e-3), seed)
    return {"accuracy": learned.accuracy, "loss": learned.loss}


def _speed(sides: Any, options: StudyOptions) -> dict[str, Any]:
    found: dict[str, Any] = {"sides": list(sides), "macs": [], "window_macs": [], "seconds": [], "window_seconds": []}
    for side in sides:
        x, grid = torch.randn(1, side * side, WIDTH), Grid(side, side)
        both = {"": SelfAttention(WIDTH, 3).eval(), "window_": WindowAttention(WIDTH, 3, WINDOW, 3).eval()}
        with torch.no_grad():
            calls = {name: partial(one, x, grid) for name, one in both.items()}
            for call in calls.values():
                call()  # compiles kernels and fills caches
            times = alternate(calls, rounds=options.pick(1, 5), seconds=options.pick(0.001, 0.1), most=20)
        for name, one in both.items():
            counted = multiply_adds(one, [x.to("meta"), grid], "all")  # pyright: ignore[reportArgumentType]
            found[f"{name}macs"].append(sum(counted.values()))
            found[f"{name}seconds"].append(times[name].spread.median)
    return found


def conclude(results: Results, options: StudyOptions) -> Conclusion:
    """Compare results at the largest depth, cost by size, and reach."""
    names = [name for name in results.names() if name != SPEED]
    depth = max((c["depth"] for c in results.conditions if c.name in names), default=0)
    with_shift, without, whole = (f"{kind}, depth {depth}" for kind in ("window 4, shifted", "window 4", "global"))
    parts = []
    if with_shift in names and whole in names:
        against = results.difference(with_shift, whole, "accuracy")
        parts.append(f"shifted windows against global attention: {points(against)} of accuracy")
    if with_shift in names and without in names:
        parts.append(f"the shift: {points(results.difference(with_shift, without, 'accuracy'))}")
    shifted, straight = reach(True), reach(False)
    parts.append(
        f"after {DEPTH} blocks a cell depends on {reached(shifted[-1])} of {SIDE**2} cells with the shift "
        f"and on {reached(straight[-1])} without"
    )
    figures = [reach_figure(shifted, straight), mask_figure()]
    tables = []
    if SPEED in results.names():
        sentence, figure, table = _cost(results)
        parts.insert(0, sentence)
        figures.append(figure)
        tables.append(table)
    rows = [(name, results.mean(name, "accuracy")) for name in names]
    figures.append(
        StudyFigure(
            "Result",
            dot_chart(rows, "test accuracy", percent=True),
            "Mean over seeds with its 95 % interval.",
            wide=True,
        )
    )
    cells = [[name, with_interval(value, percent=True)] for name, value in rows]
    tables.append(Table("Accuracy", ["attention", "test accuracy"], cells, right=["test accuracy"]))
    verdict = "; ".join(parts)
    return Conclusion(
        verdict[:1].upper() + verdict[1:] + ".",
        "Larger maps: at 8 x 8 cells four windows of 4 see everything that a digit needs, and the head averages "
        "over all "
        "cells, so information need not travel. Try --data with images whose parts lie far apart, and more seeds.",
        figures,
        tables,
    )


def _cost(results: Results) -> tuple[str, StudyFigure, Table]:
    rows = results.rows(SPEED)
    sides = rows[0]["sides"]
    ratios = [ratio_interval([row["seconds"][i] / row["window_seconds"][i] for row in rows]) for i in range(len(sides))]
    n = [side * side for side in sides]
    formula = (
        [4 * x * WIDTH**2 + 2 * x * x * WIDTH for x in n],
        [4 * x * WIDTH**2 + 2 * WINDOW**2 * x * WIDTH for x in n],
    )
    macs = rows[0]["macs"], rows[0]["window_macs"]
    curves = [
        Curve.plain("global, counted", sides, macs[0]),
        Curve.plain("window 7, counted", sides, macs[1]),
        Curve.plain("equation 1", sides, formula[0], dashed=True),
        Curve.plain("equation 2", sides, formula[1], dashed=True),
    ]
    chart = line_chart(
        curves, "side of the map in cells", "multiply-adds of one layer, 96 channels", log_y=True, log_x=True
    )
    note = (
        "Global attention grows with the square of the cells, window attention with their number. Formula and count "
        "agree."
    )
    cells = [
        [
            f"{side} x {side}",
            f"{a / 1e6:,.1f}",
            f"{f / 1e6:,.1f}",
            f"{b / 1e6:,.1f}",
            f"{g / 1e6:,.1f}",
            f"{a / b:.2f}",
            with_interval(ratio, digits=2),
        ]
        for side, a, b, f, g, ratio in zip(sides, *macs, *formula, ratios, strict=True)
    ]
    columns = ["map", "global M", "equation 1", "window M", "equation 2", "ratio", "ratio of time"]
    table = Table(
        "Cost of global and window attention",
        columns,
        cells,
        right=columns[1:],
        notes=[
            "M: million multiply-adds. Times are interleaved on this machine, batch 1; the interval is over "
            "repetitions."
        ],
    )
    sentence = (
        f"on {sides[-1]} x {sides[-1]} cells global attention costs {macs[0][-1] / macs[1][-1]:.1f} times the "
        f"multiply-adds of windows and {with_interval(ratios[-1])} times their time"
    )
    return sentence, StudyFigure("Cost", chart, note), table


PLAN = StudyPlan(
    "windows",
    "Do windows and their shift change cost or result, and how far does information travel?",
    "Small Transformers with global, window and shifted window attention train with the same seeds; cost is counted, "
    "compared with the formulas of the Swin paper and timed by turns; gradients show which cells reach which.",
    conditions,
    measure,
    conclude,
)
