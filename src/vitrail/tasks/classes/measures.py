"""The figures of a classifier, from the scores of a split."""

from typing import TypedDict

from vitrail.tasks.classes.calibration import Calibration, calibrate
from vitrail.tasks.classes.scores import ClassFigures, Scores, class_figures, count_confusions, macro_f1, top
from vitrail.tasks.confidence_interval import Rate


class ClassMeasures(TypedDict):
    """Fields of a `ClassEvaluation` that follow from the scores."""

    samples: int
    labels: tuple[str, ...]
    top1: Rate
    top5: Rate | None
    macro_f1: float
    classes: tuple[ClassFigures, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration: Calibration


def measure(scores: Scores, names: tuple[str, ...]) -> ClassMeasures:
    """Return the figures of a split; top-5 only for more than five classes, for which it is not always 1.

    Args:
        scores: one row a sample.
        names: names of the model's classes.

    Example:
        >>> import torch
        >>> from vitrail.tasks.classes.scores import score
        >>> found = measure(score(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])), ("cat", "dog"))
        >>> found["samples"], found["top1"].value, found["confusion"]
        (2, 0.5, ((1, 0), (1, 0)))
    """
    confusion = count_confusions(scores, len(names))
    classes = class_figures(confusion, names)
    return {
        "samples": len(scores.label),
        "labels": names,
        "top1": top(scores, 1),
        "top5": top(scores, 5) if len(names) > 5 else None,
        "macro_f1": macro_f1(classes),
        "classes": classes,
        "confusion": tuple(map(tuple, confusion.tolist())),
        "calibration": calibrate(scores),
    }
