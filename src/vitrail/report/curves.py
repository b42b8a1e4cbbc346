"""Learning curves of a run, each with an explanatory caption."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from vitrail.report.run_folder import Run
from vitrail.tasks.svg_chart import Series, line_chart, thin


def curves(run: Run) -> list[dict[str, Any]]:
    """Return the charts of the training, each with an explanatory caption."""
    if not run.steps and not run.epochs:
        return []
    per_epoch = [row["step"] / row["epoch"] for row in run.epochs if row.get("epoch")]
    scale = per_epoch[-1] if per_epoch else 1.0
    axis = "epoch" if per_epoch else "step"
    at = [row["step"] / scale for row in run.steps]
    ends = [row["step"] / scale for row in run.epochs]
    losses = [thin(Series("batches", at, _column(run.steps, "loss"), "faint"))]
    losses += [Series("training", ends, _column(run.epochs, "train_loss"), "a")]
    losses += [Series("validation", ends, _column(run.epochs, "val_loss"), "b")]
    first = run.metrics[0]
    quality = [Series("validation", ends, _column(run.epochs, first.name), "b")]
    rates = [thin(Series("learning rate", at, _column(run.steps, "lr"), "a"))]
    charts = [
        ("Loss", line_chart(losses, axis, "loss", zero=True), _LOSS_NOTE),
        (first.title, line_chart(quality, axis, first.title.lower(), percent=first.unit == "%"), first.note),
        (
            "Learning rate",
            line_chart(rates, axis, "learning rate", zero=True),
            "How large the updates were allowed to be.",
        ),
    ]
    return [{"title": title, "svg": Markup(svg), "note": note} for title, svg, note in charts if svg]


_LOSS_NOTE = (
    "Falling together is learning; a validation loss that rises while the training loss falls is learning by heart. "
    "Label smoothing, mixup and augmentation lift the training loss, so it may lie above."
)


def _column(rows: tuple[Mapping[str, Any], ...], name: str) -> list[float]:
    values = [row.get(name) for row in rows]
    return [float("nan") if value is None else float(value) for value in values]
