"""Warm-up, and norms: first or last, LayerNorm, BatchNorm or PowerNorm.

"On Layer Normalization in the Transformer Architecture": with norms last, gradients of the last layers are large at the
start, and training needs warm-up. "PowerNorm: Rethinking Batch Normalization in Transformers": BatchNorm is worse on
text.
"""

from typing import Any

import torch
from torch import nn

from vitrail.study.byte_models import byte_loss, byte_model
from vitrail.study.charts import Curve, dot_chart, line_chart, with_interval
from vitrail.study.images import load_images
from vitrail.study.intervals import mean_interval
from vitrail.study.learner import LearnSettings, descend, learn
from vitrail.study.norm_arms import BLOCKS, NORMS, blocks, first_gradients
from vitrail.study.plan import Conclusion, Condition, Results, StudyFigure, StudyOptions, StudyPlan
from vitrail.study.sentences import points, sentence
from vitrail.study.small_models import assemble
from vitrail.tasks.table import Table

FREE = 1e9
"""No clipping of gradients: it would hide what warm-up is for."""


def conditions(options: StudyOptions) -> list[Condition]:
    """Norms first and last with and without warm-up on images; three norms on images and on text."""
    orders = [
        Condition(f"norms {order}, {'warm-up' if share else 'no warm-up'}", {"order": order, "warmup": share})
        for order in BLOCKS
        for share in (0.2, 0.0)
    ]
    kinds = [Condition(f"{norm}, {on}", {"norm": norm, "on": on}) for on in ("images", "text") for norm in NORMS]
    return [*orders, *kinds]


def measure(condition: Condition, seed: int, options: StudyOptions) -> dict[str, Any]:
    """Train one arm; of the norms first or last, measure the gradients before the first step."""
    dim, steps = options.pick(16, 32), options.updates(3, 150)
    if condition.settings.get("on") == "text":
        model = byte_model(
            dim, blocks(dim, options.pick(2, 4), "first", condition["norm"], causal=True), NORMS[condition["norm"]](dim)
        )
        draw = torch.Generator().manual_seed(seed)
        descend(model, lambda: byte_loss(model, draw), LearnSettings(steps, lr=2e-3))
        return {"bits": float(byte_loss(model, None)) / 0.6931471805599453}
    order, norm = condition.settings.get("order", "first"), condition.settings.get("norm", "LayerNorm")
    data = load_images(options.data, 16, options.pick(64, None))
    final = nn.Identity() if order == "last" else NORMS[norm](dim)
    model = assemble(data, dim, blocks(dim, options.pick(2, 6), order, norm), patch_size=4, norm=final)
    gradients = first_gradients(model, data)
    settings = LearnSettings(steps, lr=4e-3, warmup=condition.settings.get("warmup", 0.2), clip=FREE)
    learned = learn(model, data, settings, seed)
    losses = [min(value, 1e4) for value in learned.losses]
    return {"accuracy": learned.accuracy, "diverged": learned.diverged, "gradients": gradients, "losses": losses}


def conclude(results: Results, options: StudyOptions) -> Conclusion:
    """Compare warm-up with none for each order, the gradients of last and first block, and the norms."""
    done, parts, ratios = set(results.names()), [], {}
    for order in BLOCKS:
        with_it, without = f"norms {order}, warm-up", f"norms {order}, no warm-up"
        if {with_it, without} <= done:
            gain = results.difference(with_it, without, "accuracy")
            ratios[order] = mean_interval([row["gradients"][-1] / row["gradients"][0] for row in results.rows(with_it)])
            parts.append(
                f"norms {order}: warm-up against none {points(gain)} of accuracy, gradient of the last block at the "
                f"start {with_interval(ratios[order], digits=2)} times that of the first"
            )
    for on, metric, unit, scale in (("images", "accuracy", "points", 100.0), ("text", "bits", "bits a byte", 1.0)):
        for norm in ("BatchNorm", "PowerNorm"):
            name, base = f"{norm}, {on}", f"LayerNorm, {on}"
            if {name, base} <= done:
                gap = results.difference(name, base, metric, comparisons=4)
                parts.append(f"{norm} against LayerNorm on {on}: {points(gap, unit, scale, 1 if scale > 1 else 2)}")
    return Conclusion(
        sentence(parts),
        "A smaller learning rate or clipped gradients (0.004 and none here) make warm-up matter less; deeper models "
        "make "
        "it matter more. The text is the documentation of this library: more text gives BatchNorm's statistics "
        "more to vary.",
        _figures(results, done),
        [_table(results)],
    )


def _figures(results: Results, done: set[str]) -> list[StudyFigure]:
    arms = [name for name in results.names() if name.startswith("norms ")]
    gradients, losses = [], []
    for name in arms:
        rows = results.rows(name)
        if name.endswith(", warm-up"):
            columns = zip(*(row["gradients"] for row in rows), strict=True)
            gradients.append(Curve(name.partition(",")[0], [(i + 1, mean_interval(c)) for i, c in enumerate(columns)]))
        length = min(len(row["losses"]) for row in rows)
        mean = [sum(row["losses"][i] for row in rows) / len(rows) for i in range(length)]
        smooth = [sum(mean[max(0, i - 4) : i + 1]) / len(mean[max(0, i - 4) : i + 1]) for i in range(length)]
        losses.append(Curve.plain(name, list(range(1, length + 1)), smooth))
    images = [(name, results.share(name, "accuracy")) for name in results.names() if not name.endswith("text")]
    texts = [(name, results.mean(name, "bits")) for name in results.names() if name.endswith("text")]
    return [
        StudyFigure(
            "Gradients before the first step",
            line_chart(gradients, "block", "norm of the gradient of the MLP's second layer", log_y=True),
            "Bands are 95 % intervals over seeds.",
        ),
        StudyFigure(
            "Training loss",
            line_chart(losses, "step", "cross entropy, running mean of 5 steps"),
            "Mean over seeds, until the first seed that diverged.",
        ),
        StudyFigure(
            "Images",
            dot_chart(images, "test accuracy", percent=True),
            "Mean over seeds with its 95 % interval.",
            wide=True,
        ),
        StudyFigure(
            "Text",
            dot_chart(texts, "bits a byte of held-out text; lower is better"),
            "Mean over seeds with its 95 % interval.",
            wide=True,
        ),
    ]


def _table(results: Results) -> Table:
    cells = []
    for name in results.names():
        text = name.endswith("text")
        found = results.mean(name, "bits") if text else results.share(name, "accuracy")
        value = with_interval(found, not text, 2 if text else 1)
        diverged = "" if text else f"{sum(row['diverged'] for row in results.rows(name))} of {len(results.rows(name))}"
        cells.append([name, value, diverged])
    columns = ["condition", "accuracy, or bits a byte", "diverged"]
    return Table("All conditions", columns, cells, right=columns[1:])


PLAN = StudyPlan(
    "warmup",
    "Who trains without warm-up: norms first or last, and which norm suits images and text?",
    "Deep narrow Transformers with norms first (pre-norm) and last (post-norm) train on images with and without "
    "warm-up, "
    "at one learning rate and without clipping; three norms train on images and, as a language model, on text.",
    conditions,
    measure,
    conclude,
)
