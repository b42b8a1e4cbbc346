"""Classification as a task."""

from collections.abc import Sequence
from typing import Any

from vitrail.data.check import CheckReport, check_dataset
from vitrail.data.dataset import ImageSet
from vitrail.data.datasets import Splits, open_dataset
from vitrail.data.table import Columns
from vitrail.errors import VitrailError
from vitrail.parts.model import Model
from vitrail.tasks.classify.defaults import StartingModel, advice, default_model
from vitrail.tasks.classify.evaluate import evaluate_classifier, open_split
from vitrail.tasks.classify.evaluation import ClassificationEvaluation
from vitrail.tasks.classify.options import EvaluateOptions, PredictOptions, TrainOptions
from vitrail.tasks.classify.predictor import ClassPredictor
from vitrail.tasks.classify.training import ClassificationTraining
from vitrail.tasks.image_sources import SourceImage, find_images
from vitrail.tasks.options import Bad
from vitrail.tasks.program import ProgramSpec, class_program
from vitrail.tasks.results import Notify, Progress
from vitrail.tasks.task import MetricSpec, RunSpec


class ClassificationTask:
    """One class per image."""

    name = "classify"
    reads = "image"
    metrics = (
        MetricSpec("top1", "Top-1", note="Share of validation images named right."),
        MetricSpec("top5", "Top-5"),
    )

    def open(self, spec: str, val_share: float, bad: Bad) -> Splits:
        """Open a data set of labelled images."""
        if not spec:
            raise VitrailError(
                "Nothing to learn from. Give a folder of class folders, a table or digits: vitrail train digits"
            )
        return open_dataset(spec, val_share=val_share, bad=bad)

    def open_run(self, options: Any) -> Splits:
        """Open the data set of a training run, whose options name the columns of a table."""
        if not options.data:
            return self.open(options.data, options.val_share, options.bad)
        columns = Columns(options.image_column, options.label_column, options.split_column, options.fold_column)
        if options.fold_column and not options.folds:
            raise VitrailError("--fold-column names the folds of cross-validation: add --folds with their number.")
        packed = options.model_overrides().get("in_channels", 3) in (1, 3)  # other bands are read from the files
        return open_dataset(options.data, val_share=options.val_share, bad=options.bad, columns=columns, packed=packed)

    def default_model(self, splits: Splits, device: str, fine_tune: bool) -> StartingModel:
        """Choose a model for this machine and data."""
        return default_model(splits, device, fine_tune)

    def advice(self, splits: Splits, config: Any, device: str, cores: float) -> list[str]:
        """Return advice before a training begins: accuracy and time to expect."""
        return advice(splits, config, device, cores)

    def open_evaluation(self, spec: str, split: str, options: EvaluateOptions) -> ImageSet:
        """Open the split that is evaluated, with the columns of a table."""
        columns = Columns(options.image_column, options.label_column, options.split_column)
        return open_split(spec, split, columns)

    def open_split(self, spec: str, split: str) -> ImageSet:
        """Open one split of it."""
        return open_split(spec, split)

    def check(self, spec: str, val_share: float) -> CheckReport:
        """Check a data set."""
        return check_dataset(open_dataset(spec, val_share=val_share, bad="list"))

    def bind(self, options: TrainOptions, run: RunSpec, splits: Splits) -> ClassificationTraining:
        """Build a classifier for a data set."""
        return ClassificationTraining(options, run, splits)

    def evaluate(
        self,
        model: Model,
        data: ImageSet,
        options: EvaluateOptions,
        notify: Notify = lambda choice: None,
        progress: Progress | None = None,
    ) -> ClassificationEvaluation:
        """Evaluate a classifier on a split."""
        return evaluate_classifier(model, data, options, notify, progress)

    def read_evaluation(self, values: dict[str, Any]) -> ClassificationEvaluation:
        """Read the `to_dict` of an evaluation."""
        return ClassificationEvaluation.from_dict(values)

    def collect(self, sources: object) -> Sequence[SourceImage]:
        """List images without reading them."""
        return find_images(sources)

    def predictor(
        self, model: Model, options: PredictOptions, count: int | None, notify: Notify = lambda choice: None
    ) -> ClassPredictor:
        """Return a predictor of class names."""
        return ClassPredictor(model, options, count, notify)

    def program(self, model: Model) -> ProgramSpec:
        """Return inputs and outputs of an exported program of a model."""
        return class_program(model)


TASK = ClassificationTask()
