"""Report of a classifier's evaluation: headline figures, confusion, classes, calibration."""

from functools import cache
from math import floor, log
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vitrail.tasks.classes.confusion_plot import confusion_cells, confusion_figure
from vitrail.tasks.classes.reliability_chart import reliability_chart
from vitrail.tasks.classes.scores import ClassFigures
from vitrail.tasks.formatting import percent
from vitrail.tasks.results import MetricCard, ReportSection

if TYPE_CHECKING:
    from vitrail.tasks.classes.evaluation import ClassEvaluation

MOST_ROWS = 200
"""Classes in the table of figures; of more, those with the lowest F1 are shown."""

MOST_CELLS = 25
"""Classes up to which the confusion matrix is a table with numbers; beyond, it is an image."""

_CELL_SIDES = ((3, 84), (6, 60), (12, 42), (18, 34), (10**9, 28))
"""Side of a cell of the confusion matrix in pixels, by the largest number of classes."""

_SECTIONS = {
    "Confusion matrix: what is taken for what": "confusion.html",
    "Class by class: recall, precision, F1": "classes.html",
    "Calibration: can its confidence be trusted?": "calibration.html",
}


def metric_cards(evaluation: "ClassEvaluation") -> list[MetricCard]:
    """Return the headline figures."""
    low, high = 100 * evaluation.top1.low, 100 * evaluation.top1.high
    cards = [
        MetricCard("Accuracy (top-1)", percent(evaluation.top1.value), f"95% interval {low:.1f}\u2060–\u2060{high:.1f}")
    ]
    if evaluation.top5 is not None:
        cards.append(MetricCard("Top-5 accuracy", percent(evaluation.top5.value), "true class among five"))
    present = sum(bool(each.support) for each in evaluation.classes)
    cards.append(MetricCard("Macro F1", percent(evaluation.macro_f1), f"mean over {present} classes"))
    return [*cards, MetricCard("Calibration error", percent(evaluation.calibration.ece), "gap of confidence")]


def report_sections(evaluation: "ClassEvaluation") -> list[ReportSection]:
    """Return the sections of the report."""
    values: dict[str, Any] = {
        "evaluation": evaluation,
        "reliability": Markup(reliability_chart(evaluation.calibration.bins)),
        "confusion": _confusion(evaluation),
        "figures": _weakest(evaluation),
        "floor": _floor(evaluation),
        "guess": log(len(evaluation.labels)),
    }
    return [render_section(__package__ or "", title, name, values) for title, name in _SECTIONS.items()]


def render_section(package: str, title: str, template: str, values: dict[str, Any]) -> ReportSection:
    """Render a template of a task's package as a section of the report."""
    return ReportSection(title, Markup(_environment(package).get_template(template).render(values)))


@cache
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    return environment


def _confusion(evaluation: "ClassEvaluation") -> dict[str, Any]:
    """Return the confusion matrix as a table if it is small, else as an image; and the most frequent confusions."""
    met = [i for i, each in enumerate(evaluation.classes) if each.support or each.predicted]
    matrix = np.array(evaluation.confusion)[np.ix_(met, met)]
    small, labels = len(met) <= MOST_CELLS, [evaluation.labels[i] for i in met]
    side = next(side for most, side in _CELL_SIDES if len(met) <= most)
    return {
        "labels": labels,
        "cells": confusion_cells(matrix) if small else None,
        "image": None if small else confusion_figure(matrix),
        "pairs": evaluation.most_confused(10),
        "side": side,
        "upright": 8 * max(map(len, labels), default=0) > side,
    }


def _weakest(evaluation: "ClassEvaluation") -> list[ClassFigures]:
    """Return the classes of the table: all in order, or if there are many those with the lowest F1."""
    if len(evaluation.met) <= MOST_ROWS:
        return list(evaluation.met)
    return sorted(evaluation.met, key=lambda each: each.f1.value or 0.0)[:MOST_ROWS]


def _floor(evaluation: "ClassEvaluation") -> float:
    """Return the lower limit of the F1 axis: the next tenth below all intervals."""
    return floor(10 * min((each.f1.low for each in evaluation.classes if each.f1.value is not None), default=0.0)) / 10
