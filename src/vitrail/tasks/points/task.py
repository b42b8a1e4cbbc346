"""Classification of point clouds as a task."""

from collections.abc import Sequence
from typing import Any

from vitrail.data.points.open_points import KINDS, PointSplits, open_points
from vitrail.data.points.point_set import PointCloudSet
from vitrail.errors import DataError, VitrailError, unknown
from vitrail.parts.model import Model
from vitrail.tasks.findings import Findings
from vitrail.tasks.options import Bad
from vitrail.tasks.point_program import point_program
from vitrail.tasks.points.evaluation import PointEvaluation, evaluate_points
from vitrail.tasks.points.options import EvaluateOptions, PredictOptions, TrainOptions
from vitrail.tasks.points.predictor import PointPredictor
from vitrail.tasks.points.sources import CloudInput, find_clouds
from vitrail.tasks.points.training import PointTraining
from vitrail.tasks.program import ProgramSpec, TensorSpec
from vitrail.tasks.results import Notify, Progress
from vitrail.tasks.task import MetricSpec, RunSpec


class PointsTask:
    """One class per cloud."""

    name = "points"
    reads = "points"
    metrics = (
        MetricSpec("top1", "Overall accuracy", note="Share of validation clouds named right, without votes."),
        MetricSpec("top5", "Top-5"),
    )

    def open(self, spec: str, val_share: float, bad: Bad) -> PointSplits:
        """Open labelled clouds; every file is read once, so that broken ones are known before the training.

        Raises:
            DataError: clouds cannot be read and `bad` is `fail`.
        """
        if not spec:
            raise VitrailError(f"Nothing to learn from. Data of points is one of:\n{KINDS}")
        data = open_points(spec, val_share, "list")
        faults = {problem.id: problem for problem in data.problems}
        if faults and (bad == "fail" or any(problem.kind == "classes" for problem in data.problems)):
            lines = [f"  {fault}" for fault in list(faults.values())[:3]]
            more = [f"See all: vitrail data check --task points {spec}", "Mend them, or leave them out: --bad skip"]
            raise DataError(
                "\n".join([f"{data.name} cannot be used as it is ({len(faults)} problems):", *lines, *more])
            )
        data.sets = {split: clouds.without(faults) for split, clouds in data}
        return data

    def open_evaluation(self, spec: str, split: str, options: EvaluateOptions) -> PointCloudSet:
        """Open the split that is evaluated; with `bad="skip"` every file is read once, to leave out broken ones."""
        clouds = self.open_split(spec, split)
        return clouds if options.bad == "fail" else clouds.without({fault.id for fault in clouds.faults()})

    def open_split(self, spec: str, split: str) -> PointCloudSet:
        """Open one split of them; `all` is a data set without splits."""
        if split in ("train", "val", "test"):
            return open_points(spec).require(split)
        if split != "all":
            raise unknown("split", split, ("train", "val", "test", "all"))
        found = dict(open_points(spec, val_share=0.0))
        if len(found) > 1:
            raise VitrailError(f"{spec} is split into {', '.join(found)}. Evaluate one of them: --split test.")
        return next(iter(found.values()))

    def check(self, spec: str, val_share: float) -> Findings:
        """Read every cloud."""
        data = open_points(spec, val_share, bad="list")
        return Findings(data.problems, counts=[f"{split}: {len(clouds):,} clouds" for split, clouds in data])

    def bind(self, options: TrainOptions, run: RunSpec, splits: PointSplits) -> PointTraining:
        """Build a classifier for a data set."""
        return PointTraining(options, run, splits)

    def evaluate(
        self,
        model: Model,
        data: PointCloudSet,
        options: EvaluateOptions,
        notify: Notify = lambda choice: None,
        progress: Progress | None = None,
    ) -> PointEvaluation:
        """Evaluate a classifier on a split."""
        return evaluate_points(model, data, options, progress)

    def read_evaluation(self, values: dict[str, Any]) -> PointEvaluation:
        """Read the `to_dict` of an evaluation."""
        return PointEvaluation.from_dict(values)

    def collect(self, sources: object) -> Sequence[CloudInput]:
        """List clouds without reading them."""
        return find_clouds(sources)

    def predictor(
        self, model: Model, options: PredictOptions, count: int | None, notify: Notify = lambda choice: None
    ) -> PointPredictor:
        """Return a predictor of class names."""
        return PointPredictor(model, options)

    def program(self, model: Model) -> ProgramSpec:
        """Return inputs and outputs of an exported program of a model."""
        return point_program(model, TensorSpec("logits", ("batch", model.config.num_classes), classes=1))


TASK = PointsTask()
