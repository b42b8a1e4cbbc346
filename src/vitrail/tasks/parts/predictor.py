"""Finding the parts of point clouds."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vitrail.errors import VitrailError
from vitrail.parts.model import Model
from vitrail.parts.point_model import PartModel
from vitrail.tasks.classes.class_names import class_names
from vitrail.tasks.classes.result import check_finite
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.parts.result import PointParts
from vitrail.tasks.points.predictor import thousandths
from vitrail.tasks.points.sampling import sampled, still
from vitrail.tasks.points.sources import CloudInput
from vitrail.tasks.table import Table


class PartPredictor:
    """A model that finds parts; a cloud has the same points whatever else is predicted.

    Args:
        model: a model of parts on its device.
    """

    gate = None

    def __init__(self, model: Model):
        self.model = need_part_model(model)
        self.names = class_names(model, model.config.num_classes)
        self.csv_columns = self.names

    def job(self) -> list[object]:
        """Return the options that determine the predictions, apart from the weights."""
        return [self.model.sampling.to_text(), list(self.names)]

    def load(self, item: CloudInput) -> Tensor:
        """Read a cloud and sample its points, `(N, 3)`."""
        return sampled(item.read(), self.model.sampling, still(0))

    def predict(self, batch: list[tuple[CloudInput, Tensor]]) -> list[PointParts]:
        """Return the parts of each cloud.

        Raises:
            DataError: a logit is not a finite number.
        """
        points = torch.stack([each for _, each in batch])
        with inference_mode_for(self.model) as device:
            logits = self.model(points.to(device)).cpu()
        check_finite(logits.flatten(1), [item.name for item, _ in batch])
        rows = zip(batch, points.numpy(), logits.argmax(-1).numpy(), strict=True)
        return [PointParts(item.name, self.names, cloud, parts) for (item, _), cloud, parts in rows]

    def view(self, result: PointParts) -> dict[str, Any]:
        """Return the points in thousandths of the unit, the part of each, and the names of the parts."""
        return {"points": thousandths(result.points), "parts": result.parts.tolist(), "names": list(result.names)}

    def failure(self, item: CloudInput, reason: str) -> PointParts:
        """Return the result of a cloud that cannot be read."""
        return PointParts(item.name, error=reason)

    def table(self, results: Sequence[PointParts]) -> Table:
        """Return one cloud per row with the share of each part."""
        rows = [[r.path, *(f"{share:.1%}" for share in r.shares().values())] for r in results]
        return Table("", ["cloud", *self.names], rows, right=list(self.names))


def need_part_model(model: Model) -> PartModel:
    """Return a model of parts.

    Raises:
        VitrailError: it is another one.
    """
    if not isinstance(model, PartModel):
        raise VitrailError(f"A {type(model).__name__} does not find parts. Take a model of the task parts.")
    return model
