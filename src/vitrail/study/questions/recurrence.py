"""Is autoregression recurrence? RetNet in three forms, a Transformer with a cache, an LSTM.

"Retentive Network: A Successor to Transformer for Large Language Models", section 2: one layer, parallel, recurrent and
chunkwise.
"""

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from vitrail.generation.decoding import LanguageDecoding
from vitrail.layouts import TokenSequence
from vitrail.models import create_model
from vitrail.parts.recurrent import LSTM
from vitrail.parts.token_mixers.retention import (
    ChunkwiseRetention,
    ParallelRetention,
    RecurrentRetention,
    use_retention,
)
from vitrail.study.charts import Curve, line_chart, with_interval
from vitrail.study.intervals import mean_interval, ratio_interval
from vitrail.study.plan import Conclusion, Condition, Results, StudyFigure, StudyOptions, StudyPlan
from vitrail.tasks.table import Table

ALL = "all models"
RETNET, CACHED, WHOLE, RECURRENT = "RetNet, recurrent", "Transformer, cache", "Transformer, no cache", "LSTM"
KINDS = (RETNET, CACHED, WHOLE, RECURRENT)
HEADS, VOCABULARY = 4, 128


def conditions(options: StudyOptions) -> list[Condition]:
    """All models in one cell, so that their times are taken by turns."""
    lengths, dim, depth = options.pick(((4, 8), 16, 1), ((64, 128, 256, 512, 1024), 128, 4))
    return [Condition(ALL, {"lengths": lengths, "dim": dim, "depth": depth})]


def measure(condition: Condition, seed: int, options: StudyOptions) -> dict[str, Any]:
    """Compare outputs of equal forms, and time one token at each length."""
    dim, depth, lengths = condition["dim"], condition["depth"], condition["lengths"]
    numbers = {"dim": dim, "depth": depth, "num_heads": HEADS, "vocab_size": VOCABULARY, "dropout": 0.0}
    retnet = create_model("retnet_1b3", **numbers).eval()
    gpt = create_model("gpt2", max_length=max(lengths) + 64, **numbers).eval()
    lstm = LSTM(dim, dim, depth).eval()
    with torch.no_grad():
        found = _agreement(retnet, gpt, lstm, dim, options.pick(6, 100))
        found["milliseconds"] = {kind: [] for kind in KINDS}
        for length in lengths:
            for kind, times in _times(retnet, gpt, lstm, length, dim, options.pick(1, 9)).items():
                found["milliseconds"][kind].append(1e3 * median(times))
    return found


def _agreement(retnet: Any, gpt: Any, lstm: LSTM, dim: int, length: int) -> dict[str, Any]:
    """Return the largest difference between forms, as a share of the largest output."""
    ids = torch.randint(VOCABULARY, (1, length))
    parallel = use_retention(retnet, ParallelRetention())(ids)
    forms = {
        "recurrent": use_retention(retnet, RecurrentRetention())(ids),
        "chunkwise": use_retention(retnet, ChunkwiseRetention(max(2, length // 5)))(ids),
    }
    use_retention(retnet, ParallelRetention())
    found = {f"RetNet, {name} against parallel": _apart(out, parallel) for name, out in forms.items()}
    for name, model in (("RetNet, state carried", retnet), ("Transformer, cache", gpt)):
        decoding = LanguageDecoding(model, 1, length)
        steps = torch.stack([decoding.feed(ids[:, i : i + 1])[0] for i in range(length)])
        found[f"{name}, against the whole"] = _apart(steps, model(ids)[0].log_softmax(-1))
    x, state, outputs = torch.randn(1, length, dim), None, []
    for i in range(length):
        y, state = lstm.cells(x[:, i : i + 1], state)
        outputs.append(y)
    found["LSTM, state carried, against the whole"] = _apart(torch.cat(outputs, 1), lstm(x, TokenSequence(length)))
    return {"apart": found}


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def _times(retnet: Any, gpt: Any, lstm: LSTM, length: int, dim: int, rounds: int) -> dict[str, list[float]]:
    """Time one more token after `length` tokens, the models by turns."""
    ids, x = torch.randint(VOCABULARY, (1, length)), torch.randn(1, length, dim)
    calls: dict[str, Callable[[], Any]] = {WHOLE: lambda: gpt(ids)}
    for kind, model in ((RETNET, retnet), (CACHED, gpt)):
        decoding = LanguageDecoding(model, 1, length + rounds + 1)
        decoding.feed(ids)
        calls[kind] = lambda decoding=decoding: decoding.feed(ids[:, :1])
    state = lstm.cells(x)[1]
    calls[RECURRENT] = lambda: lstm.cells(x[:, :1], state)
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(rounds + 1):
        for kind in KINDS:
            started = perf_counter()
            calls[kind]()
            if number:  # the first call fills caches
                times[kind].append(perf_counter() - started)
    return times


def state_bytes(kind: str, length: int, dim: int, depth: int) -> int:
    """Return the fp32 bytes that must be kept between two tokens of one text.

    Keys and values: 2 L n C; retention: L h d e with d = C / h and e = 2 C / h; LSTM: 2 L C; no cache: the ids.
    """
    numbers = {
        CACHED: 2 * depth * length * dim,
        RETNET: depth * HEADS * (dim // HEADS) * (2 * dim // HEADS),
        RECURRENT: 2 * depth * dim,
        WHOLE: 2 * length,
    }
    return 4 * numbers[kind]


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
)
