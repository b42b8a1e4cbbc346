"""Multi-label classification as a task."""

from collections.abc import Sequence
from typing import Any, Literal

from vitrail.data.datasets import Splits
from vitrail.data.label_sets import LabelSet, open_label_sets
from vitrail.errors import VitrailError, unknown
from vitrail.parts.model import Model
from vitrail.tasks.findings import Findings
from vitrail.tasks.image_sources import SourceImage, find_images
from vitrail.tasks.multilabel.evaluation import LabelEvaluation, evaluate_labels
from vitrail.tasks.multilabel.options import EvaluateOptions, PredictOptions, TrainOptions
from vitrail.tasks.multilabel.predictor import LabelPredictor
from vitrail.tasks.multilabel.training import LabelTraining
from vitrail.tasks.options import Bad
from vitrail.tasks.program import ProgramSpec, class_program
from vitrail.tasks.results import Notify, Progress
from vitrail.tasks.task import MetricSpec, RunSpec


class MultilabelTask:
    """Any number of labels per image."""

    name = "multilabel"
    reads = "image"
    metrics = (
        MetricSpec("map", "Mean AP", note="Mean over the labels of the area under precision and recall."),
        MetricSpec("f1", "F1"),
    )

    def open(self, spec: str, val_share: float, bad: Bad) -> Splits:
        """Open a table of images with labels."""
        if not spec:
            raise VitrailError("Nothing to learn from. Give a table: vitrail train labels.csv --task multilabel")
        return open_label_sets(spec, val_share, bad)

    def open_evaluation(self, spec: str, split: str, options: EvaluateOptions) -> LabelSet:
        """Open the split that is evaluated; with `bad="skip"` without the rows that cannot be used."""
        return self.open_split(spec, split, options.bad)

    def open_split(self, spec: str, split: str, bad: Literal["fail", "skip"] = "fail") -> LabelSet:
        """Open one split of it; `all` is a table without splits."""
        if split in ("train", "val", "test"):
            return open_label_sets(spec, bad=bad).require(split)  # pyright: ignore[reportReturnType, reportArgumentType]
        if split != "all":
            raise unknown("split", split, ("train", "val", "test", "all"))
        found = dict(open_label_sets(spec, val_share=0.0, bad=bad))
        if len(found) > 1:
            raise VitrailError(f"{spec} is split into {', '.join(found)}. Evaluate one of them: --split test.")
        return next(iter(found.values()))  # pyright: ignore[reportReturnType]

    def check(self, spec: str, val_share: float) -> Findings:
        """Check the rows of a table."""
        data = open_label_sets(spec, val_share, bad="skip")
        sizes = tuple(f"{split}: {len(images):,} images, {images.counts()}" for split, images in data)
        return Findings(data.skipped, counts=sizes)

    def bind(self, options: TrainOptions, run: RunSpec, splits: Splits) -> LabelTraining:
        """Build a classifier for a data set."""
        return LabelTraining(options, run, splits)

    def evaluate(
        self,
        model: Model,
        data: LabelSet,
        options: EvaluateOptions,
        notify: Notify = lambda choice: None,
        progress: Progress | None = None,
    ) -> LabelEvaluation:
        """Evaluate a classifier on a split."""
        return evaluate_labels(model, data, options, progress)

    def read_evaluation(self, values: dict[str, Any]) -> LabelEvaluation:
        """Read the `to_dict` of an evaluation."""
        return LabelEvaluation.from_dict(values)

    def collect(self, sources: object) -> Sequence[SourceImage]:
        """List images without reading them."""
        return find_images(sources)

    def predictor(
        self, model: Model, options: PredictOptions, count: int | None, notify: Notify = lambda choice: None
    ) -> LabelPredictor:
        """Return a predictor of labels."""
        return LabelPredictor(model, options, count, notify)

    def program(self, model: Model) -> ProgramSpec:
        """Return inputs and outputs of an exported program of a model."""
        return class_program(model)


TASK = MultilabelTask()
