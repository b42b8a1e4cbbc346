"""Cost of global and of window attention: formulas, counts and times by turns."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from vitrail.bench.interleaved_timing import alternate
from vitrail.grid import Grid
from vitrail.inference.cost import multiply_adds
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.study.charts import Curve, line_chart, with_interval
from vitrail.study.intervals import ratio_interval
from vitrail.study.plan import Results, StudyFigure, StudyOptions
from vitrail.tasks.table import Table

SPEED = "speed"


WIDTH, WINDOW = 96, 7


def attention_speed(sides: Sequence[int], options: StudyOptions) -> dict[str, Any]:
    """Count and time both kinds of attention at several sides of the map."""
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


def cost_of_windows(results: Results) -> tuple[str, StudyFigure, Table]:
    """Return a sentence, a chart and a table of counts, formulas and times."""
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
