"""Detection as a task."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitrail.data.boxes.convert import ConvertedBoxes, convert_boxes
from vitrail.data.boxes.dataset import BoxSet, BoxSplits
from vitrail.data.boxes.open import open_boxes
from vitrail.errors import unknown
from vitrail.parts.model import Model
from vitrail.tasks.detect.check import BoxCheck, check_boxes
from vitrail.tasks.detect.coco_eval import require_library
from vitrail.tasks.detect.evaluate import evaluate_detector
from vitrail.tasks.detect.evaluation import DetectionEvaluation
from vitrail.tasks.detect.options import EvaluateOptions, PredictOptions, TrainOptions
from vitrail.tasks.detect.predictor import DetectionPredictor
from vitrail.tasks.detect.program import detection_program
from vitrail.tasks.detect.training import DetectionTraining
from vitrail.tasks.image_sources import SourceImage, find_images
from vitrail.tasks.options import Bad
from vitrail.tasks.program import ProgramSpec
from vitrail.tasks.results import Notify, Progress
from vitrail.tasks.task import MetricSpec, RunSpec


class DetectionTask:
    """Boxes of objects, and their masks if the model has a mask head."""

    name = "detect"
    reads = "image"
    metrics = (
        MetricSpec("map50", "AP50", note="Average precision at an overlap (IoU) of 0.5, mean over classes."),
        MetricSpec("map", "AP", note="Mean over overlaps of 0.50 to 0.95."),
    )

    def open(self, spec: str, val_share: float, bad: Bad) -> BoxSplits:
        """Open a data set of images with boxes; with `bad="fail"` its annotations must be right."""
        require_library()
        splits = open_boxes(spec, val_share)
        if bad == "fail":
            check_boxes(splits).require_good()
        return check_boxes(splits).without_bad(splits) if bad == "skip" else splits

    def open_split(self, spec: str, split: str) -> BoxSet:
        """Open one split of it."""
        if split not in ("train", "val", "test", "all"):
            raise unknown("split", split, ("train", "val", "test", "all"))
        splits = open_boxes(spec, 0.0 if split == "all" else 0.1)
        if split != "all":
            return splits.require(split)
        records = [record for _, part in splits for record in part.records]
        return BoxSet(splits.name, splits.classes, records)

    def check(self, spec: str, val_share: float) -> BoxCheck:
        """Check annotations and images."""
        return check_boxes(open_boxes(spec, val_share), read=True)

    def convert(self, spec: str, to: str, out: Path, copy: bool) -> ConvertedBoxes:
        """Write a data set in the layout of COCO, PASCAL VOC or YOLO."""
        return convert_boxes(spec, to, out, copy)

    def bind(self, options: TrainOptions, run: RunSpec, splits: BoxSplits) -> DetectionTraining:
        """Build a detector for a data set."""
        return DetectionTraining(options, run, splits)

    def evaluate(
        self,
        model: Model,
        data: BoxSet,
        options: EvaluateOptions,
        notify: Notify = lambda choice: None,
        progress: Progress | None = None,
    ) -> DetectionEvaluation:
        """Evaluate a detector on a split."""
        return evaluate_detector(model, data, options, notify, progress)

    def read_evaluation(self, values: dict[str, Any]) -> DetectionEvaluation:
        """Read the `to_dict` of an evaluation."""
        return DetectionEvaluation.from_dict(values)

    def collect(self, sources: object) -> Sequence[SourceImage]:
        """List images without reading them."""
        return find_images(sources)

    def predictor(
        self, model: Model, options: PredictOptions, count: int | None, notify: Notify = lambda choice: None
    ) -> DetectionPredictor:
        """Return a predictor of boxes."""
        return DetectionPredictor(model, options, count, notify)

    def program(self, model: Model) -> ProgramSpec:
        """Return what an exported detector takes and gives."""
        return detection_program(model)


TASK = DetectionTask()
