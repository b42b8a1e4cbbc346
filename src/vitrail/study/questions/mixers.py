"""One MetaFormer, two dozen token mixers, at equal cost.

"MetaFormer Is Actually What You Need for Vision": the architecture matters more than the mixer. The mixers differ in
size, so the widths are found that make parameters, multiply-adds or measured latency equal.
"""

from typing import Any

from vitrail.study.charts import dot_chart, with_interval
from vitrail.study.equal_budgets import BUDGETS, REFERENCE, TOLERANCE, Shape, build, counted, fit
from vitrail.study.images import load_images
from vitrail.study.intervals import Estimate, rank
from vitrail.study.learner import LearnSettings, learn
from vitrail.study.mixer_catalogue import MIXERS
from vitrail.study.plan import Conclusion, Condition, Results, StudyFigure, StudyOptions, StudyPlan
from vitrail.study.sentences import listed, points, sentence
from vitrail.tasks.table import Table

SIDE, STEPS = 24, 150
CONTROL = "identity"


def conditions(options: StudyOptions) -> list[Condition]:
    """One arm a mixer."""
    names = options.pick((REFERENCE, CONTROL, "pooling"), tuple(MIXERS))
    return [Condition(name, {"budget": options.choice("budget")}) for name in names]


def measure(condition: Condition, seed: int, options: StudyOptions) -> dict[str, Any]:
    """Find the widths, train, test."""
    data = load_images(options.data, SIDE, options.pick(48, None))
    shape = options.pick(Shape(1, 6, 16), Shape())
    width = fit(condition.name, data, shape, condition["budget"])
    model = build(condition.name, data, shape, width.dim, width.hidden)
    learned = learn(model, data, LearnSettings(options.updates(3, STEPS), lr=3e-3), seed)
    return {
        "accuracy": learned.accuracy,
        "loss": learned.loss,
        "dim": width.dim,
        "hidden": width.hidden,
        "share": width.share,
        "parameters": counted(model, data, "parameters"),
        "macs": counted(model, data, "multiply-adds"),
    }


def conclude(results: Results, options: StudyOptions) -> Conclusion:
    """Rank the mixers whose cost is equal; compare all with the control that mixes nothing."""
    budget = options.choice("budget")
    worst = {name: max(abs(row["share"] - 1) for row in results.rows(name)) for name in results.names()}
    equal = [name for name in results.names() if worst[name] <= TOLERANCE]
    ranking = rank({name: results.values(name, "accuracy") for name in equal})
    behind = [name for name in ranking.order if name not in ranking.tied]
    parts = (
        [
            f"at equal {budget} (within {TOLERANCE:.0%}), {listed(ranking.tied)} cannot be ranked"
            + ("" if ranking.gaps else " with one seed")
            if len(ranking.tied) > 1
            else f"at equal {budget} (within {TOLERANCE:.0%}), {ranking.tied[0]} is ahead"
        ]
        if ranking.tied
        else [f"no mixer met the budget of {budget}"]
    )
    parts += [f"{listed(behind)} {'falls' if len(behind) == 1 else 'fall'} behind {ranking.order[0]}"] if behind else []
    if {CONTROL, REFERENCE} <= set(equal):
        gain = results.difference(REFERENCE, CONTROL, "accuracy")
        parts.append(f"{REFERENCE} against no mixing at all: {points(gain)}")
    left = [name for name in results.names() if name not in equal]
    parts += [f"not compared, for their {budget} could not be made equal: {listed(left)}"] if left else []
    rows = [(name, results.share(name, "accuracy")) for name in [*ranking.order, *left]]
    gaps = [(name, _below(ranking.gaps[name])) for name in ranking.order if name in ranking.gaps]
    return Conclusion(
        sentence(parts),
        "The budget (--set budget=multiply-adds or latency), the data, and the length of training (--steps): "
        f"{options.updates(3, STEPS)} steps on {SIDE} pixels favour what learns locality at once. More seeds separate "
        "more mixers.",
        [
            StudyFigure(
                "Accuracy",
                dot_chart(rows, "test accuracy", percent=True),
                "Mean over paired seeds with its own 95 % interval.",
                wide=True,
            ),
            StudyFigure(
                "Behind the first",
                dot_chart(gaps, "difference of accuracy to the first", percent=True, zero=True),
                "Paired by seed; intervals hold together for all comparisons. One that reaches zero cannot be ranked.",
                wide=True,
            ),
        ],
        [_table(results, [name for name, _ in rows], ranking.tied)],
        decided=ranking.decided or bool(behind),
    )


def _below(gap: Estimate) -> Estimate:
    return Estimate(-gap.mean, -gap.high, -gap.low, gap.count)


def _table(results: Results, names: list[str], tied: list[str]) -> Table:
    cells = []
    for name in names:
        row = results.rows(name)[0]
        accuracy = with_interval(results.share(name, "accuracy"), percent=True)
        cost = [f"{row['parameters']:,.0f}", f"{row['macs'] / 1e6:.2f}", f"{row['share']:.3f}"]
        cells.append([name, accuracy, "yes" if name in tied else "", f"{row['dim']} / {row['hidden']}", *cost])
    columns = [
        "mixer",
        "test accuracy",
        "in the first group",
        "width / hidden",
        "parameters",
        "M multiply-adds",
        "share of budget",
    ]
    return Table("Mixers at equal cost", columns, cells, right=[columns[1], *columns[3:]])


PLAN = StudyPlan(
    "mixers",
    "One MetaFormer, two dozen token mixers: which is best at equal cost?",
    "The same four blocks with each token mixer of the library that fits the socket; widths are found so that all cost "
    "the same within 2 %, seeds are paired, and mixers whose intervals overlap are not ranked.",
    conditions,
    measure,
    conclude,
    choices={"budget": BUDGETS},
)
