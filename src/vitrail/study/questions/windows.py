"""Window, shift and depth: cost, result, and how far information travels.

"Swin Transformer", section 3.2, equations 1 and 2: MSA costs 4 h w C^2 + 2 (h w)^2 C, W-MSA 4 h w C^2 + 2 M^2 h w C.
"""

from typing import Any

from vitrail.study.charts import dot_chart, with_interval
from vitrail.study.images import load_images
from vitrail.study.learner import LearnSettings, learn
from vitrail.study.plan import Conclusion, Condition, Results, StudyFigure, StudyOptions, StudyPlan
from vitrail.study.reach import DEPTH, SIDE, mask_figure, mixer, reach, reach_figure, reached
from vitrail.study.sentences import points, sentence
from vitrail.study.small_models import assemble, pre_norm_block
from vitrail.study.window_costs import SPEED, attention_speed, cost_of_windows
from vitrail.tasks.table import Table

KINDS = {"global": (0, False), "window 4, shifted": (4, True), "window 4": (4, False), "window 2, shifted": (2, True)}


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
        return attention_speed(condition["sides"], options)
    data, dim = load_images(options.data, 16, options.pick(64, None)), options.pick(16, 32)
    window, shift = condition["window"], condition["shift"]
    mixers = [mixer(dim, 2, window, window // 2 if shift and i % 2 else 0) for i in range(condition["depth"])]
    model = assemble(data, dim, [pre_norm_block(dim, one) for one in mixers], patch_size=2)
    learned = learn(model, data, LearnSettings(steps=options.updates(4, 150), lr=3e-3), seed)
    return {"accuracy": learned.accuracy, "loss": learned.loss}


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
        cost, figure, table = cost_of_windows(results)
        parts.insert(0, cost)
        figures.append(figure)
        tables.append(table)
    rows = [(name, results.share(name, "accuracy")) for name in names]
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
    return Conclusion(
        sentence(parts),
        "Larger maps: at 8 x 8 cells four windows of 4 see everything that a digit needs, and the head averages "
        "over all "
        "cells, so information need not travel. Try --data with images whose parts lie far apart, and more seeds.",
        figures,
        tables,
    )


PLAN = StudyPlan(
    "windows",
    "Do windows and their shift change cost or result, and how far does information travel?",
    "Small Transformers with global, window and shifted window attention train with the same seeds; cost is counted, "
    "compared with the formulas of the Swin paper and timed by turns; gradients show which cells reach which.",
    conditions,
    measure,
    conclude,
)
