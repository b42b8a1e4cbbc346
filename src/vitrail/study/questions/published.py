"""The published table: parameters, FLOPs and throughput of ViT and Swin, and why FLOPs do not order them.

"Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", table 1: throughput on a V100.
"""

from functools import partial
from typing import Any

import torch

from vitrail.bench.interleaved_timing import alternate
from vitrail.inference.cost import model_cost
from vitrail.study.charts import dot_chart, with_interval
from vitrail.study.intervals import Estimate, mean_interval, ratio_interval
from vitrail.study.plan import Conclusion, Condition, Results, StudyFigure, StudyOptions, StudyPlan
from vitrail.study.swin_table import PUBLISHED, build
from vitrail.tasks.table import Table

FIRST, LAST = "vit_base_patch16_384", "swin_base_patch4_window12_384"
SPEED = "throughput"


def conditions(options: StudyOptions) -> list[Condition]:
    """All models in one cell: they are timed by turns."""
    return [Condition(SPEED, {"models": options.pick([FIRST, LAST], list(PUBLISHED)), "batch": 1})]


def measure(condition: Condition, seed: int, options: StudyOptions) -> dict[str, Any]:
    """Time all models by turns, in fp32 as PyTorch runs them."""
    calls = {}
    for name in condition["models"]:
        model = build(name, options.quick)
        calls[name] = partial(model, torch.randn(1, 3, model.preprocess.size, model.preprocess.size))
    with torch.no_grad():
        for call in calls.values():
            call()
        times = alternate(calls, rounds=1, seconds=options.pick(0.001, 0.5), most=5)
    return {"seconds": {name: times[name].spread.median for name in calls}}


def conclude(results: Results, options: StudyOptions) -> Conclusion:
    """Compare ratios of FLOPs with ratios of throughput, published and measured."""
    rows, names = results.rows(SPEED), results.conditions[0]["models"]
    totals = {name: model_cost(build(name, True) if options.quick else name)[-1] for name in names}
    flops = {name: total.multiply_adds / 1e9 for name, total in totals.items()}
    pairs = [(flops[name], PUBLISHED[name][1]) for name in names]
    pairs += [(totals[name].parameters / 1e6, PUBLISHED[name][0]) for name in names]
    worst = max(abs(ours / theirs - 1) for ours, theirs in pairs)
    moved = _bytes_per_flop(totals[LAST]) / _bytes_per_flop(totals[FIRST])
    ratios = {name: ratio_interval([row["seconds"][FIRST] / row["seconds"][name] for row in rows]) for name in names}
    here = ratios[LAST]
    expected, paper = flops[FIRST] / flops[LAST], PUBLISHED[LAST][2] / PUBLISHED[FIRST][2]
    slower, why = _against(here, expected), f"; Swin writes {moved:.1f} times the activations for each multiply-add"
    verdict = (
        f"FLOPs and parameters are those of the paper within {worst:.1%}; by FLOPs Swin-B-384 should run at "
        f"{expected:.2f} times the rate of ViT-B/16-384, the paper measured {paper:.2f}, here it is "
        f"{with_interval(here, digits=2)}, {slower} FLOPs promise{why}."
    )
    charts = [(_short(name), ratios[name]) for name in names if name != FIRST]
    promised = [
        (f"{_short(name)}, FLOPs", Estimate(flops[FIRST] / flops[name], 0, 0, 1)) for name in names if name != FIRST
    ]
    printed = [
        (f"{_short(name)}, paper", Estimate(PUBLISHED[name][2] / PUBLISHED[FIRST][2], 0, 0, 1))
        for name in names
        if name != FIRST
    ]
    order = [row for group in zip(charts, printed, promised, strict=True) for row in group]
    return Conclusion(
        verdict,
        "The device and the kernels: `vitrail bench NAME --precision bf16` times optimized models, whose fused "
        "blocks move "
        "fewer activations; a GPU with much more arithmetic than bandwidth widens the gap, larger batches narrow "
        "that of launches.",
        [
            StudyFigure(
                "Throughput as a multiple of ViT-B/16-384",
                dot_chart(order, "times the images per second of ViT-B/16-384"),
                "Measured here with its 95 % interval, printed in the paper (V100), and promised by FLOPs.",
                wide=True,
            )
        ],
        [_table(rows, totals, flops, ratios)],
    )


def _against(here: Estimate, expected: float) -> str:
    if not here.known:
        return "one measurement without an interval, beside what"
    if here.low <= expected <= here.high:
        return "which its interval does not tell from what"
    return "less than" if here.high < expected else "more than"


def _short(name: str) -> str:
    return name.replace("_patch16", "").replace("_patch4", "").replace("_", "-")


def _bytes_per_flop(total: Any) -> float:
    return total.activation_bytes / total.multiply_adds


def _table(rows: Any, totals: Any, flops: dict[str, float], ratios: dict[str, Estimate]) -> Table:
    cells = []
    shown = {name: PUBLISHED[name] for name in flops}
    for name, (millions, printed, speed) in shown.items():
        rate = mean_interval([1 / row["seconds"][name] for row in rows])
        parameters = totals[name].parameters / 1e6
        work = mean_interval([2 * flops[name] / row["seconds"][name] for row in rows])
        cells.append(
            [
                _short(name),
                f"{parameters:.1f} ({millions:.0f})",
                f"{flops[name]:.1f} ({printed})",
                f"{1e3 * _bytes_per_flop(totals[name]):.1f}",
                with_interval(rate, digits=2),
                f"{work.mean:,.0f}",
                f"{ratios[name].mean:.2f}",
                f"{speed / PUBLISHED[FIRST][2]:.2f}",
                f"{flops[FIRST] / flops[name]:.2f}",
            ]
        )
    columns = [
        "model",
        "M parameters (paper)",
        "G multiply-adds (paper)",
        "bytes per 1,000",
        "images/s",
        "GFLOP/s",
        "ratio here",
        "ratio, paper",
        "ratio by FLOPs",
    ]
    note = "Batch 1, fp32, PyTorch, models by turns. Bytes per 1,000: activations written for 1,000 multiply-adds."
    return Table("Recomputed and measured", columns, cells, right=columns[1:], notes=[note])


PLAN = StudyPlan(
    "published",
    "Do FLOPs order ViT-B/16-384, ViT-L/16-384, Swin-B-224 and Swin-B-384 by speed?",
    "Parameters and multiply-adds are recomputed from shapes and compared with table 1 of the Swin paper; "
    "throughput is "
    "measured on this machine by turns, and its ratios are compared with the printed ones and with those of FLOPs.",
    conditions,
    measure,
    conclude,
    trains=False,
)
