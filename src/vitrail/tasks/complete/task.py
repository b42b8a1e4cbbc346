"""Image completion as a task."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from vitrail.data.check import CheckReport, check_dataset
from vitrail.data.dataset import ImageSet
from vitrail.data.datasets import Splits, open_dataset
from vitrail.data.image_io import open_image
from vitrail.errors import VitrailError
from vitrail.parts.model import Model
from vitrail.tasks.complete.completion import Completion, complete, to_pixels
from vitrail.tasks.complete.evaluation import CompletionEvaluation, evaluate_completion
from vitrail.tasks.complete.options import EvaluateOptions, GenerateOptions, PredictOptions, TrainOptions
from vitrail.tasks.complete.training import CompletionTraining
from vitrail.tasks.image_sources import SourceImage, find_images
from vitrail.tasks.options import Bad
from vitrail.tasks.program import ProgramSpec
from vitrail.tasks.results import Notify, Progress, file_stem
from vitrail.tasks.step_program import language_program
from vitrail.tasks.table import Table
from vitrail.tasks.task import MetricSpec, RunSpec


class CompletionPredictor:
    """A model that completes images.

    Args:
        model: a `PixelModel` on its device.
        options: samples, given rows, choice of colours.
    """

    csv_columns = ("samples", "rows")
    saved_name = staticmethod(file_stem)
    gate = None
    sequential = True

    def __init__(self, model: Model, options: PredictOptions):
        self.model, self.options = model, options

    def job(self) -> list[object]:
        """Return the options that determine the images, apart from the weights."""
        o = self.options
        return [o.samples, o.keep, o.temperature, o.top_k, o.top_p, o.seed]

    def load(self, item: SourceImage) -> Image.Image:
        """Decode an image."""
        return item.read()

    def predict(self, batch: list[tuple[SourceImage, Image.Image]]) -> list[Completion]:
        """Complete each image."""
        return [
            complete(self.model, to_pixels(image, self.model.config), self.options, item.name) for item, image in batch
        ]

    def failure(self, item: SourceImage, reason: str) -> Completion:
        """Return the result of an image that cannot be read."""
        return Completion(item.name, error=reason)

    def table(self, results: Sequence[Completion]) -> Table:
        """Return one image per row; the images themselves are written by `--save`."""
        rows = [[result.path, *result.cells()] for result in results]
        return Table("", ["image", "samples", "rows given"], rows, right=["samples", "rows given"])


class GeneratedImage(NamedTuple):
    """A completion that is written to a file."""

    completion: Completion

    def save(self, path: Path) -> Path:
        """Write the sheet."""
        self.completion.write(path)
        return path


class CompletionTask:
    """The missing pixels of an image."""

    name = "complete"
    reads = "image"
    metrics = (
        MetricSpec("nats", "Loss per pixel", False, "nats"),
        MetricSpec("bits_per_pixel", "Bits per pixel", False, ""),
    )

    def open(self, spec: str, val_share: float, bad: Bad) -> Splits:
        """Open a data set of images; their classes are not read."""
        if not spec:
            raise VitrailError("Nothing to learn from. Give a folder of images in class folders, a table or digits.")
        return open_dataset(spec, val_share=val_share, bad=bad)

    def open_split(self, spec: str, split: str) -> ImageSet:
        """Open one split of it."""
        return open_dataset(spec, packed=False).require(split)  # pyright: ignore[reportArgumentType]

    def check(self, spec: str, val_share: float) -> CheckReport:
        """Check a data set."""
        return check_dataset(open_dataset(spec, val_share=val_share, bad="list"))

    def bind(self, options: TrainOptions, run: RunSpec, splits: Splits) -> CompletionTraining:
        """Build a model of pixels for images."""
        return CompletionTraining(options, run, splits)

    def evaluate(
        self,
        model: Model,
        data: ImageSet,
        options: EvaluateOptions,
        notify: Notify = lambda choice: None,
        progress: Progress | None = None,
    ) -> CompletionEvaluation:
        """Measure the loss per pixel on a split."""
        return evaluate_completion(model, data, options, progress)

    def read_evaluation(self, values: dict[str, Any]) -> CompletionEvaluation:
        """Read the `to_dict` of an evaluation."""
        return CompletionEvaluation.from_dict(values)

    def collect(self, sources: object) -> Sequence[SourceImage]:
        """List images without reading them."""
        return find_images(sources)

    def predictor(
        self, model: Model, options: PredictOptions, count: int | None, notify: Notify = lambda choice: None
    ) -> CompletionPredictor:
        """Return a predictor of completions."""
        return CompletionPredictor(model, options)

    def generator(
        self, model: Model, options: GenerateOptions, prompt: str, notify: Notify = lambda choice: None
    ) -> GeneratedImage:
        """Complete the image of a file."""
        if not prompt:
            raise VitrailError("An image model goes on from an image: vitrail generate MODEL image.png")
        return GeneratedImage(complete(model, to_pixels(open_image(prompt), model.config), options, prompt))

    def program(self, model: Model) -> ProgramSpec:
        """Return what an exported step of decoding takes and gives: colours of pixels are its words."""
        return language_program(model)


TASK = CompletionTask()
