"""The report: one page about one run that opens anywhere, today and in ten years, without a network."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from math import floor, log
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import vitrail
from vitrail.atomic_io import write_file
from vitrail.lab.chart import reliability_chart
from vitrail.lab.confusion_plot import confusion_cells, confusion_picture
from vitrail.lab.curves import curves
from vitrail.lab.evaluation import Evaluation
from vitrail.lab.explain_section import look_inside
from vitrail.lab.formatting import arithmetic, duration, format_value, human_count, percent, summary_text
from vitrail.lab.metrics import ClassFigures
from vitrail.lab.run_folder import Run, read_run
from vitrail.training.config import TrainConfig

MOST_ROWS = 200
"""Classes in the table of figures; of more, those with the lowest F1 are shown."""

MOST_CELLS = 25
"""Classes up to which the confusion matrix is a table with numbers; beyond, it is a picture."""


def write_report(run_folder: str | PathLike[str]) -> Path:
    """Write `report.html` into a run folder: all that the folder tells, on one page.

    A run that has not finished gets a report of what there is so far.

    Args:
        run_folder: what `vitrail train` wrote, with an `evaluation.json` where the model was evaluated.

    Returns:
        The file.

    Raises:
        VitrailError: the folder holds no run.
        DataError: a file of it is damaged.
    """
    folder = Path(run_folder)
    return write_page(read_run(folder), folder / "report.html")


def write_page(run: Run, path: Path, model: Any = None) -> Path:
    """Write the page of a run, or of an evaluation alone, to a file; see `render`."""
    write_file(path, render(run, model).encode())
    return path


def render(run: Run, model: Any = None) -> str:
    """Return the page of a run as HTML that needs nothing from outside.

    Args:
        run: what there is to tell.
        model: the model to look inside of; by default the one in the run's folder.
    """
    evaluation = run.evaluation
    of_evaluation: dict[str, Any] = {}
    if evaluation is not None:
        of_evaluation = {
            "sentence": summary_text(evaluation),
            "reliability": Markup(reliability_chart(evaluation.calibration.bins)),
            "confusion": _confusion(evaluation),
            "figures": _weakest(evaluation),
            "floor": _floor(evaluation),
            "guess": log(len(evaluation.labels)),
        }
    settings, defaults = _settings(run.config)
    return (
        _environment()
        .get_template("report.html")
        .render(
            run=run,
            evaluation=evaluation,
            facts=list(_facts(run)),
            tiles=list(_tiles(run)),
            curves=curves(run),
            inside=look_inside(run, model),
            settings=settings,
            defaults=defaults,
            written=datetime.now(UTC).strftime("%d %B %Y at %H:%M UTC"),
            version=vitrail.__version__,
            **of_evaluation,
        )
    )


def _facts(run: Run) -> Iterator[str]:
    """Yield what stands under the title: which model, from what, measured on what."""
    model = run.evaluation.model if run.evaluation else run.config.get("model")
    if model and model != run.name:
        yield str(model)
    if run.config.get("data"):
        yield f"trained on {run.config['data']}"
    if run.evaluation is not None:
        yield f"evaluated on {run.evaluation.data}"


class MetricCard(NamedTuple):
    """A headline figure: what it is, its value, and what to make of it."""

    label: str
    value: str
    note: str


def _tiles(run: Run) -> Iterator[MetricCard]:
    evaluation, summary = run.evaluation, run.summary
    if evaluation is not None:
        low, high = 100 * evaluation.top1.low, 100 * evaluation.top1.high
        yield MetricCard("Top-1", percent(evaluation.top1.value), f"95% interval {low:.1f}\u2060–\u2060{high:.1f}")
        if evaluation.top5 is not None:
            yield MetricCard("Top-5", percent(evaluation.top5.value), "true class among five")
        yield MetricCard(
            "Macro F1",
            percent(evaluation.macro_f1),
            f"mean over {sum(bool(each.support) for each in evaluation.classes)} classes",
        )
        yield MetricCard("Calibration error", percent(evaluation.calibration.ece), "gap of confidence")
    elif run.epochs:
        best = max(run.epochs, key=lambda row: row.get("top1") or 0.0)
        yield MetricCard(
            "Best top-1 so far", percent(best.get("top1")), f"validation, epoch {format_value(best.get('epoch'))}"
        )
    parameters = evaluation.parameters if evaluation else summary.get("parameters")
    if parameters:
        yield MetricCard("Parameters", human_count(parameters), f"{parameters:,}")
    seconds = summary.get("seconds") or (run.epochs[-1].get("seconds") if run.epochs else None)
    if seconds:
        yield MetricCard("Training time", duration(seconds), f"{len(run.steps):,} updates" if run.steps else "")


def _settings(config: Mapping[str, Any]) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Return the settings that were chosen, and those that are as they always are."""
    usual = {each.name: each.default for each in fields(TrainConfig)}
    plain_values = {name: list(value) if isinstance(value, tuple) else value for name, value in usual.items()}
    left = {name: value for name, value in config.items() if name in usual and value == plain_values[name]}
    return [pair for pair in config.items() if pair[0] not in left], list(left.items())


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vitrail.lab"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "plain": format_value,
        "duration": duration,
        "arithmetic": arithmetic,
    }
    return environment


def _confusion(evaluation: Evaluation) -> dict[str, Any]:
    """Return the confusion matrix as a table where it can be read, else as a picture; and its commonest mistakes."""
    met = [i for i, each in enumerate(evaluation.classes) if each.support or each.predicted]
    matrix = np.array(evaluation.confusion)[np.ix_(met, met)]
    small = len(met) <= MOST_CELLS
    return {
        "labels": [evaluation.labels[i] for i in met],
        "cells": confusion_cells(matrix) if small else None,
        "picture": None if small else confusion_picture(matrix),
        "pairs": evaluation.most_confused(10),
    }


def _weakest(evaluation: Evaluation) -> list[ClassFigures]:
    """Return the classes of the table: all of them in order, or of many the ones that are found worst."""
    if len(evaluation.met) <= MOST_ROWS:
        return list(evaluation.met)
    return sorted(evaluation.met, key=lambda each: each.f1.value or 0.0)[:MOST_ROWS]


def _floor(evaluation: Evaluation) -> float:
    """Return where the axis of the F1 intervals begins: the tenth below all of them."""
    return floor(10 * min((each.f1.low for each in evaluation.classes if each.f1.value is not None), default=0.0)) / 10
