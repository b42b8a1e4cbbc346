"""Naming the classes of point clouds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitrail.errors import VitrailError
from vitrail.parts.model import Model
from vitrail.parts.point_model import PointModel
from vitrail.tasks.classes.class_names import class_names, read_names
from vitrail.tasks.classes.result import check_finite, rank_classes
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.points.options import PredictOptions
from vitrail.tasks.points.result import PointLabels
from vitrail.tasks.points.sampling import sampled, still
from vitrail.tasks.points.sources import CloudInput
from vitrail.tasks.table import Table

Picked = list[tuple[tuple[int, ...], ...]]
"""For each cloud the picks of each SortNet."""


class PointPredictor:
    """A classifier that names the classes of clouds; a cloud has the same points whatever else is predicted.

    Args:
        model: a classifier of clouds on its device.
        options: number of classes, their names.

    Raises:
        VitrailError: the number of class names is not that of the classes.
    """

    gate = None

    def __init__(self, model: Model, options: PredictOptions):
        self.model, self.options = need_point_model(model), options
        names: Any = options.labels
        given = read_names(names) if isinstance(names, str) or hasattr(names, "__fspath__") else names
        self.names = class_names(model, model.config.num_classes, given)
        kept = range(1, min(options.top, len(self.names)) + 1)
        self.csv_columns = tuple(f"{name}_{i}" for i in kept for name in ("label", "probability"))

    def job(self) -> list[object]:
        """Return the options that determine the predictions, apart from the weights."""
        return [self.model.sampling.to_text(), list(self.names), self.options.top]

    def load(self, item: CloudInput) -> Tensor:
        """Read a cloud and sample its points, `(N, 3)`."""
        return sampled(item.read(), self.model.sampling, still(0))

    def predict(self, batch: list[tuple[CloudInput, Tensor]]) -> list[PointLabels]:
        """Return the likeliest classes of each cloud.

        Raises:
            DataError: a logit is not a finite number.
        """
        names, points = [item.name for item, _ in batch], torch.stack([each for _, each in batch])
        with inference_mode_for(self.model) as device:
            logits = self.model(points.to(device))
            ordered, picks = picked(self.model, points.to(device))
        check_finite(logits, names)
        ranked = rank_classes(logits, self.names, self.options.top)
        rows = zip(names, ranked, ordered.cpu().numpy(), picks, strict=True)
        return [PointLabels(name, *best, points=cloud, picks=chosen) for name, best, cloud, chosen in rows]

    def view(self, result: PointLabels) -> dict[str, Any]:
        """Return the points in thousandths of the unit, one after the other, and the picks of each SortNet."""
        assert result.points is not None
        return {"points": thousandths(result.points), "picks": [list(net) for net in result.picks]}

    def failure(self, item: CloudInput, reason: str) -> PointLabels:
        """Return the result of a cloud that cannot be read."""
        return PointLabels(item.name, error=reason)

    def table(self, results: Sequence[PointLabels]) -> Table:
        """Return one cloud per row, or of a single cloud one class per row."""
        if len(results) == 1:
            rows = [[label, f"{p:.1%}", "█" * round(20 * p)] for label, p in results[0].top(self.options.top)]
            return Table("", ["class", "probability", ""], rows, right=["probability"])
        rows = [[r.path, r.label, f"{r.probability:.1%}"] for r in results]
        return Table("", ["cloud", "class", "probability"], rows, right=["probability"])


def thousandths(points: np.ndarray) -> list[int]:
    """Return points `(N, 3)` of the unit sphere as `3 N` whole numbers, for drawing.

    Example:
        >>> thousandths(np.array([[0.25, -1.0, 0.0]]))
        [250, -1000, 0]
    """
    return np.rint(1000 * points).astype(int).ravel().tolist()


def picked(model: Model, points: Tensor) -> tuple[Tensor, Picked]:
    """Return the points in the model's order, and the picks of its SortNets; none if it has none."""
    backbone: Any = model.backbone
    if not hasattr(backbone, "picks") or hasattr(model, "runtime"):  # an exported program gives logits alone
        return points, [()] * len(points)
    points, picks = backbone.picks(points)
    index = torch.stack([each.index for each in picks], dim=1).tolist()  # (B, M, K)
    return points, [tuple(tuple(net) for net in cloud) for cloud in index]


def need_point_model(model: Model) -> PointModel:
    """Return a model of points.

    Raises:
        VitrailError: it is another one.
    """
    if not isinstance(model, PointModel):
        raise VitrailError(f"A {type(model).__name__} does not read points. Take a model of the task points.")
    return model
