"""Finding the parts of point clouds as a task."""

from typing import Any

from vitrail.data.points.open_points import PointSplits
from vitrail.data.points.point_set import PointCloudSet
from vitrail.parts.model import Model
from vitrail.tasks.parts.evaluation import PartEvaluation, evaluate_parts
from vitrail.tasks.parts.options import EvaluateOptions, PredictOptions, TrainOptions
from vitrail.tasks.parts.predictor import PartPredictor
from vitrail.tasks.parts.training import PartTraining
from vitrail.tasks.point_program import point_program
from vitrail.tasks.points.task import PointsTask
from vitrail.tasks.program import ProgramSpec, TensorSpec
from vitrail.tasks.results import Notify, Progress
from vitrail.tasks.task import MetricSpec, RunSpec


class PartsTask(PointsTask):
    """One part per point; data are opened and inputs collected as for classification."""

    name = "parts"
    metrics = (
        MetricSpec("miou", "Mean IoU", note="Over the points of all validation clouds; mean of the parts that occur."),
        MetricSpec("accuracy", "Points right"),
    )

    def bind(self, options: TrainOptions, run: RunSpec, splits: PointSplits) -> PartTraining:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Build a model of parts for a data set."""
        return PartTraining(options, run, splits)

    def evaluate(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        model: Model,
        data: PointCloudSet,
        options: EvaluateOptions,
        notify: Notify = lambda choice: None,
        progress: Progress | None = None,
    ) -> PartEvaluation:
        """Evaluate a model on a split."""
        return evaluate_parts(model, data, options, progress)

    def read_evaluation(self, values: dict[str, Any]) -> PartEvaluation:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Read the `to_dict` of an evaluation."""
        return PartEvaluation.from_dict(values)

    def predictor(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, model: Model, options: PredictOptions, count: int | None, notify: Notify = lambda choice: None
    ) -> PartPredictor:
        """Return a predictor of parts."""
        return PartPredictor(model)

    def program(self, model: Model) -> ProgramSpec:
        """Return inputs and outputs of an exported program of a model: logits of each point."""
        return point_program(model, TensorSpec("logits", ("batch", "points", model.config.num_classes), classes=2))


TASK = PartsTask()
