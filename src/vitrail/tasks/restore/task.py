"""Restoration as a task."""

from collections.abc import Sequence
from typing import Any

from vitrail.data.restoration_set import RestorationSet, RestorationSplits, open_restoration, unreadable
from vitrail.errors import VitrailError
from vitrail.parts.model import Model
from vitrail.tasks.findings import Findings
from vitrail.tasks.image_sources import SourceImage, find_images
from vitrail.tasks.options import Bad
from vitrail.tasks.program import NamedAxis, ProgramSpec, TensorSpec
from vitrail.tasks.restore.evaluate import evaluate_restorer
from vitrail.tasks.restore.evaluation import RestorationEvaluation
from vitrail.tasks.restore.options import EvaluateOptions, PredictOptions, TrainOptions
from vitrail.tasks.restore.predictor import RestorePredictor
from vitrail.tasks.restore.training import RestorationTraining
from vitrail.tasks.results import Notify, Progress
from vitrail.tasks.task import MetricSpec, RunSpec


class RestorationTask:
    """A better image from a degraded one."""

    name = "restore"
    reads = "image"
    metrics = (
        MetricSpec("psnr", "PSNR", unit="dB", note="Mean over whole validation images, as papers measure it."),
        MetricSpec("ssim", "SSIM", unit=""),
    )

    def open(self, spec: str, val_share: float, bad: Bad) -> RestorationSplits:
        """Open folders of images; every image is decoded once, so that faults are found before training."""
        if not spec:
            raise VitrailError(
                "Nothing to learn from. Give a folder of images: vitrail train --task restore data/bsds500"
            )
        return open_restoration(spec, val_share, bad)

    def open_split(self, spec: str, split: str) -> RestorationSet:
        """Open one split; `all` is a folder without splits."""
        if split != "all":
            return open_restoration(spec, val_share=0.0).require(split)
        splits = open_restoration(spec, val_share=0.0)
        if len(splits.sets) > 1:
            raise VitrailError(f"{spec} has the splits {', '.join(splits.sets)}. Evaluate one of them: --split test.")
        [images] = splits.sets.values()
        return images

    def check(self, spec: str, val_share: float) -> Findings:
        """Check that every image can be decoded."""
        splits = open_restoration(spec, val_share)
        faults = [fault for _, images in splits for fault in unreadable(images)]
        return Findings(faults, counts=[f"{split}: {len(images):,} images" for split, images in splits])

    def bind(self, options: TrainOptions, run: RunSpec, splits: RestorationSplits) -> RestorationTraining:
        """Build a restorer for image sets."""
        return RestorationTraining(options, run, splits)

    def evaluate(
        self,
        model: Model,
        data: RestorationSet,
        options: EvaluateOptions,
        notify: Notify = lambda choice: None,
        progress: Progress | None = None,
    ) -> RestorationEvaluation:
        """Evaluate a restorer on a split."""
        return evaluate_restorer(model, data, options, notify, progress)

    def read_evaluation(self, values: dict[str, Any]) -> RestorationEvaluation:
        """Read the `to_dict` of an evaluation."""
        return RestorationEvaluation.from_dict(values)

    def collect(self, sources: object) -> Sequence[SourceImage]:
        """List images without reading them."""
        return find_images(sources)

    def predictor(
        self, model: Model, options: PredictOptions, count: int | None, notify: Notify = lambda choice: None
    ) -> RestorePredictor:
        """Return a predictor of restored images."""
        return RestorePredictor(model, options, count, notify)

    def program(self, model: Model) -> ProgramSpec:
        """Return inputs and outputs of an exported program of a model: pixels in 0..1 at any size."""
        rows, columns = (24, 16, 40, 23, 32, 17, 9, 64), (24, 48, 40, 31, 17, 50, 33, 72)
        height = NamedAxis("height", 24, 131, (24, 17), rows, small=(3, 24))
        width = NamedAxis("width", 24, 173, (24, 31), columns, small=(7, 5))
        channels, scale = model.config.in_channels, model.scale
        images = TensorSpec("images", ("batch", channels, "height", "width"))
        grown = ("height", "width") if scale == 1 else (f"height*{scale}", f"width*{scale}")
        return ProgramSpec(model, (images,), (TensorSpec("restored", ("batch", channels, *grown)),), (height, width))


TASK = RestorationTask()
