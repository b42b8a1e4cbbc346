"""Semantic segmentation as a task."""

from collections.abc import Sequence
from typing import Any, Literal

from vitrail.data.mask_check import MaskReport, check_masks
from vitrail.data.masks import KINDS, MaskSet, MaskSplits, open_masks
from vitrail.errors import VitrailError, unknown
from vitrail.parts.model import Model
from vitrail.tasks.image_sources import SourceImage, find_images
from vitrail.tasks.options import Bad
from vitrail.tasks.program import ProgramSpec, TensorSpec, image_program
from vitrail.tasks.results import Notify, Progress
from vitrail.tasks.segment.evaluate import evaluate_segmenter
from vitrail.tasks.segment.evaluation import SegmentEvaluation
from vitrail.tasks.segment.options import EvaluateOptions, PredictOptions, TrainOptions
from vitrail.tasks.segment.predictor import SegmentPredictor
from vitrail.tasks.segment.training import SegmentTraining
from vitrail.tasks.task import MetricSpec, RunSpec


class SegmentationTask:
    """One class per pixel."""

    name = "segment"
    reads = "image"
    metrics = (
        MetricSpec("miou", "Mean IoU", note="Pooled over the validation images; void pixels never count."),
        MetricSpec("pixel_accuracy", "Pixel accuracy"),
    )

    def open(self, spec: str, val_share: float, bad: Bad) -> MaskSplits:
        """Open a data set of images with masks."""
        if not spec:
            raise VitrailError(f"Nothing to learn from. Data for segmentation is one of:\n{KINDS}")
        return open_masks(spec, val_share=val_share, bad=bad)

    def open_evaluation(self, spec: str, split: str, options: EvaluateOptions) -> MaskSet:
        """Open the split that is evaluated; with `bad="skip"` without the samples that have no mask."""
        return self.open_split(spec, split, options.bad)

    def open_split(self, spec: str, split: str, bad: Literal["fail", "skip"] = "fail") -> MaskSet:
        """Open one split of it."""
        if split not in ("train", "val", "test", "all"):
            raise unknown("split", split, ("train", "val", "test", "all"))
        if split != "all":
            return open_masks(spec, bad=bad).require(split)  # pyright: ignore[reportArgumentType]
        found = dict(open_masks(spec, val_share=0.0, bad=bad))
        if len(found) > 1:
            raise VitrailError(f"{spec} is split into {', '.join(found)}. Evaluate one: --split {list(found)[-1]}.")
        return next(iter(found.values()))

    def check(self, spec: str, val_share: float) -> MaskReport:
        """Check a data set."""
        return check_masks(open_masks(spec, val_share=val_share, bad="list"))

    def bind(self, options: TrainOptions, run: RunSpec, splits: MaskSplits) -> SegmentTraining:
        """Build a segmenter for a data set."""
        return SegmentTraining(options, run, splits)

    def evaluate(
        self,
        model: Model,
        data: MaskSet,
        options: EvaluateOptions,
        notify: Notify = lambda choice: None,
        progress: Progress | None = None,
    ) -> SegmentEvaluation:
        """Evaluate a segmenter on a split."""
        return evaluate_segmenter(model, data, options, notify, progress)

    def read_evaluation(self, values: dict[str, Any]) -> SegmentEvaluation:
        """Read the `to_dict` of an evaluation."""
        return SegmentEvaluation.from_dict(values)

    def collect(self, sources: object) -> Sequence[SourceImage]:
        """List images without reading them."""
        return find_images(sources)

    def predictor(
        self, model: Model, options: PredictOptions, count: int | None, notify: Notify = lambda choice: None
    ) -> SegmentPredictor:
        """Return a predictor of masks."""
        return SegmentPredictor(model, options, count, notify)

    def program(self, model: Model) -> ProgramSpec:
        """Return inputs and outputs of an exported program of a model: logits of each pixel."""
        shape = ("batch", model.config.num_classes, "height", "width")
        return image_program(model, TensorSpec("logits", shape, classes=1))


TASK = SegmentationTask()
