"""Is autoregression recurrence? RetNet in three forms, a Transformer with a cache, an LSTM.

"Retentive Network: A Successor to Transformer for Large Language Models", section 2: one layer, parallel, recurrent and
chunkwise.
"""

from statistics import median
from typing import Any

import torch

from vitrail.models import create_model
from vitrail.parts.recurrent import LSTM
from vitrail.study.charts import Curve, line_chart, with_interval
from vitrail.study.decoding_costs import (
    HEADS,
    KINDS,
    VOCABULARY,
    agreement,
    state_bytes,
    token_times,
)
from vitrail.study.intervals import mean_interval, ratio_interval
from vitrail.study.plan import Conclusion, Condition, Results, StudyFigure, StudyOptions, StudyPlan
from vitrail.tasks.table import Table

ALL = "all models"


def conditions(options: StudyOptions) -> list[Condition]:
    """All models in one cell, so that their times are taken by turns."""
    lengths, dim, depth = options.pick(((4, 8), 16, 1), ((64, 128, 256, 512, 1024), 128, 4))
    return [Condition(ALL, {"lengths": lengths, "dim": dim, "depth": depth})]


def measure(condition: Condition, seed: int, options: StudyOptions) -> dict[str, Any]:
    """Compare outputs of equal forms, and time one token at each length."""
    dim, depth, lengths = condition["dim"], condition["depth"], condition["lengths"]
    numbers = {"dim": dim, "depth": depth, "num_heads": HEADS, "vocab_size": VOCABULARY, "dropout": 0.0}
    retnet: Any = create_model("retnet_1b3", **numbers).eval()
    gpt: Any = create_model("gpt2", max_length=max(lengths) + 64, **numbers).eval()
    lstm = LSTM(dim, dim, depth).eval()
    with torch.no_grad():
        found = agreement(retnet, gpt, lstm, dim, options.pick(6, 100))
        found["milliseconds"] = {kind: [] for kind in KINDS}
        for length in lengths:
            for kind, times in token_times(retnet, gpt, lstm, length, dim, options.pick(1, 9)).items():
                found["milliseconds"][kind].append(1e3 * median(times))
    return found


def conclude(results: Results, options: StudyOptions) -> Conclusion:
    """Compare forms, growth of the cost of a token, and state."""
    rows, setting = results.rows(ALL), results.conditions[0]
    lengths, dim, depth = setting["lengths"], setting["dim"], setting["depth"]
    apart = {name: max(row["apart"][name] for row in rows) for name in rows[0]["apart"]}
    growth = {
        kind: ratio_interval([row["milliseconds"][kind][-1] / row["milliseconds"][kind][0] for row in rows])
        for kind in KINDS
    }
    times, states = [], []
    for kind in KINDS:
        columns = zip(*(row["milliseconds"][kind] for row in rows), strict=True)
        points = [(n, mean_interval(values)) for n, values in zip(lengths, columns, strict=True)]
        times.append(Curve(kind, points))
        states.append(Curve.plain(kind, lengths, [state_bytes(kind, n, dim, depth) for n in lengths]))
    span = f"from {lengths[0]} to {lengths[-1]} tokens the time of the next one grows by"
    verdict = (
        f"All forms give the same outputs (largest relative difference {max(apart.values()):.0e}); {span} "
        + ", ".join(f"{with_interval(growth[kind], digits=1)} for {kind}" for kind in KINDS)
        + f"; the state of the Transformer grows {lengths[-1] // lengths[0]} times, those of RetNet and LSTM do not: "
        "a Transformer with a cache is a recurrence whose state grows."
    )
    cells = [
        [
            c.name,
            *(with_interval(v, digits=2) for _, v in (c.points[0], c.points[-1])),
            *(f"{s.points[i][1].mean / 1024:,.1f}" for i in (0, -1)),
        ]
        for c, s in zip(times, states, strict=True)
    ]
    columns = [
        "model",
        *(f"ms at {n}" for n in (lengths[0], lengths[-1])),
        *(f"KiB at {n}" for n in (lengths[0], lengths[-1])),
    ]
    outputs = [[name, f"{value:.1e}"] for name, value in apart.items()]
    return Conclusion(
        verdict,
        "Size: at width 128 the cost of a call hides that of attention until about a thousand tokens; longer texts and "
        "larger batches make the cache expensive. Trained weights change no cost, and no identity.",
        [
            StudyFigure(
                "Time of one more token",
                line_chart(times, "tokens so far", "milliseconds", log_x=True, log_y=True),
                "Median of calls taken by turns on this machine, batch 1.",
            ),
            StudyFigure(
                "State",
                line_chart(states, "tokens so far", "bytes kept for one text", log_x=True, log_y=True),
                "What the next token needs of all earlier ones, in fp32. Without a cache it is the tokens themselves.",
            ),
        ],
        [
            Table(
                "Cost and state",
                columns,
                cells,
                right=columns[1:],
                notes=[f"Width {dim}, {depth} layers, {HEADS} heads."],
            ),
            Table("Same outputs", ["comparison", "relative difference"], outputs, right=["relative difference"]),
        ],
    )


PLAN = StudyPlan(
    "recurrence",
    "Is autoregression recurrence: what do RetNet, a cached Transformer and an LSTM carry on?",
    "The same weights compute in parallel, token by token and in chunks, and must agree; then the time of one more "
    "token "
    "is taken by turns after texts of growing length, and the state that has to be kept is counted.",
    conditions,
    measure,
    conclude,
    trains=False,
)
