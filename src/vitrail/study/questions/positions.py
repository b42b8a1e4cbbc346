"""Position schemes: trained at one size, tested at others."""

from typing import Any

from vitrail.study.charts import Curve, dot_chart, line_chart, with_interval
from vitrail.study.images import load_images
from vitrail.study.intervals import mean_interval, rank
from vitrail.study.learner import LearnSettings, accuracy, learn
from vitrail.study.plan import Conclusion, Condition, Results, StudyFigure, StudyOptions, StudyPlan
from vitrail.study.position_schemes import SCHEMES, positioned
from vitrail.study.sentences import points, ranked, sentence
from vitrail.tasks.table import Table

SIDE, PATCH = 24, 3
SIDES = (18, 21, 24, 30, 36)


def conditions(options: StudyOptions) -> list[Condition]:
    """One arm a scheme."""
    return [Condition(name, {"sides": options.pick((18, SIDE, 36), SIDES)}) for name in SCHEMES]


def measure(condition: Condition, seed: int, options: StudyOptions) -> dict[str, Any]:
    """Train at one size, test at all."""
    data = load_images(options.data, SIDE, options.pick(48, None))
    dim, depth = options.pick((16, 1), (32, 4))
    model = positioned(condition.name, data, dim, depth, PATCH)
    learn(model, data, LearnSettings(steps=options.updates(3, 150), lr=3e-3, augmented=True), seed)
    tested = [accuracy(model, data.at(side), data.test_labels) for side in condition["sides"]]
    return {f"at {side}": value for side, value in zip(condition["sides"], tested, strict=True)}


def conclude(results: Results, options: StudyOptions) -> Conclusion:
    """Rank the schemes at the size of training and at the largest; compare each with no position."""
    names, sides = results.names(), results.conditions[0]["sides"]
    at, far = f"at {SIDE}", f"at {max(sides)}"
    parts = [
        f"trained and tested at {SIDE} pixels, {ranked(rank({n: results.values(n, at) for n in names}), 'accuracy')}"
    ]
    parts.append(
        f"tested at {max(sides)} pixels, {ranked(rank({n: results.values(n, far) for n in names}), 'accuracy')}"
    )
    others = [name for name in names if name != "none"]
    if "none" in names and others:
        best = max(others, key=lambda name: results.mean(name, at).mean)
        gain = results.difference(best, "none", at, comparisons=len(others))
        parts.append(f"{best} against no position at all: {points(gain)}")
    curves = [Curve(n, [(side, results.share(n, f"at {side}")) for side in sides]) for n in names]
    lost = {n: mean_interval([row[far] - row[at] for row in results.rows(n)]) for n in names}
    cells = [
        [n, *(with_interval(results.share(n, f"at {side}"), percent=True) for side in sides), points(lost[n])]
        for n in names
    ]
    columns = ["scheme", *(f"{side} pixels" for side in sides), f"{max(sides)} against {SIDE}"]
    return Conclusion(
        sentence(parts),
        "Fine-tuning at the new size, which practice adds; larger changes of size; images in which parts mean "
        "different "
        "things in different places. Larger test images here are enlarged, so patches also look smoother.",
        [
            StudyFigure(
                "Accuracy by size of the test images",
                line_chart(curves, "side of the test images in pixels", "test accuracy", percent=True),
                f"Trained at {SIDE} pixels ({SIDE // PATCH} x {SIDE // PATCH} patches). Bands are 95 % intervals "
                "over seeds.",
                wide=True,
            ),
            StudyFigure(
                f"At {SIDE} pixels",
                dot_chart([(n, results.share(n, at)) for n in names], "test accuracy", percent=True),
                "The size of training.",
            ),
            StudyFigure(
                f"From {SIDE} to {max(sides)} pixels",
                dot_chart([(n, lost[n]) for n in names], "change of accuracy", percent=True, zero=True),
                "Paired by seed, with 95 % intervals.",
            ),
        ],
        [Table("Accuracy by size", columns, cells, right=columns[1:])],
    )


PLAN = StudyPlan(
    "positions",
    "Which position scheme survives another image size: none, sin/cos, learned, relative, rotary or PEG?",
    "One small Transformer with six ways to know where tokens sit trains at one size with the same seeds, and is "
    "tested "
    "at smaller and larger sizes without fine-tuning; tables are resized as their papers do.",
    conditions,
    measure,
    conclude,
)
