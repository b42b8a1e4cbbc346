"""Evaluation of a model that completes images: loss per pixel, and samples."""

from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

from markupsafe import Markup

from vitrail.data.dataset import ImageSet
from vitrail.data.sampler import ResumableSampler
from vitrail.parts.model import Model
from vitrail.tasks.complete.completion import complete
from vitrail.tasks.complete.options import EvaluateOptions, GenerateOptions
from vitrail.tasks.complete.training import PixelLoader, PixelMetric, quantise_all, read_pixels
from vitrail.tasks.data_url import encode
from vitrail.tasks.formatting import duration
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.results import ImageExample, MetricCard, Progress, ReportSection
from vitrail.tasks.skipped import skipped_fact, skipped_fields, skipped_sentence
from vitrail.tasks.table import Table

_SHOWN = 4


@dataclass(frozen=True)
class CompletionEvaluation:
    """Figures of a model of pixels on one split.

    Args:
        model: name of the variant.
        data: name of the data.
        parameters: number of parameters.
        samples: images.
        nats: mean loss per pixel, in nats.
        bits_per_pixel: the same in bits.
        sheets: completions of the first images, as `data:` addresses.
        seconds: wall time.
        device: device of the model.
        skipped: images that could not be read.
        skipped_names: the first of them.
    """

    model: str
    data: str
    parameters: int
    samples: int
    nats: float
    bits_per_pixel: float
    sheets: tuple[str, ...]
    seconds: float
    device: str
    skipped: int = 0
    skipped_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(sheet.startswith("data:image/png;base64,") for sheet in self.sheets):
            raise ValueError("a sheet is not an image")  # a page would load it from its URL

    def metrics(self) -> dict[str, float]:
        """Return the figures by name."""
        return {"loss": self.nats, "nats": self.nats, "bits_per_pixel": self.bits_per_pixel}

    def summary(self) -> str:
        """Return the figures in a sentence."""
        return (
            f"Over {self.samples:,} images of {self.data} the loss is {self.nats:.4f} nats per pixel"
            f" ({self.bits_per_pixel:.4f} bits), each pixel given those before it."
            f"{skipped_sentence(self.skipped, self.skipped_names)}"
        )

    def tables(self, rows: int) -> list[Table]:
        """Return the figures."""
        cells = [["loss", f"{self.nats:.4f}", "nats per pixel"], ["loss", f"{self.bits_per_pixel:.4f}", "bits"]]
        cells += [["images", f"{self.samples:,}", f"{self.data}, in {duration(self.seconds)} on {self.device}"]]
        return [Table("", ["measure", "value", ""], cells, right=["value"])]

    def cards(self) -> list[MetricCard]:
        """Return the headline figure."""
        return [MetricCard("Loss", f"{self.nats:.3f}", "nats per pixel")]

    def sections(self) -> list[ReportSection]:
        """Return completions of the first images."""
        note = "From left to right: the image, its given upper half, four samples."
        images = Markup("").join(Markup('<p><img src="{}" alt="Completions"></p>').format(each) for each in self.sheets)
        return [ReportSection("Completions", Markup('<p class="caption">{}</p>').format(note) + images)]

    def images_to_explain(self) -> list[ImageExample]:
        """Return no image."""
        return []

    def facts(self) -> dict[str, str]:
        """Return how it was measured."""
        left_out = skipped_fact(self.skipped, self.skipped_names)
        return {"data": self.data, **left_out, "device": self.device, "time": duration(self.seconds)}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {"format_version": 1, "task": "complete", **asdict(self), "sheets": list(self.sheets)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CompletionEvaluation":
        """Build from the dict of `to_dict`."""
        values = {key: value for key, value in values.items() if key not in ("format_version", "task")}
        names = tuple(values.get("skipped_names", ()))
        return cls(**{**values, "sheets": tuple(values["sheets"]), "skipped_names": names})


def evaluate_completion(
    model: Model, images: ImageSet, options: EvaluateOptions, progress: Progress | None = None
) -> CompletionEvaluation:
    """Measure the loss per pixel of every image of a split, and complete the first few.

    Args:
        model: a model on its device.
        images: the split.
        options: batch, and what to do with unreadable images.
        progress: receives the numbers of images done and of all images, after each batch.

    Raises:
        DataError: an image cannot be read (with `bad="skip"`: none can).
    """
    started = perf_counter()
    images, pixels, faults = read_pixels(images, model.config, options.bad)
    with inference_mode_for(model) as device:
        ids = quantise_all(model, pixels.to(device)).cpu()
        order = ResumableSampler(len(images), options.batch, shuffle=False, drop_last=False)
        metric, done = PixelMetric(device), 0
        for batch in PixelLoader(images, ids, model.start, order).epoch():
            batch = batch.to(device)
            metric.update(model(batch.ids), batch)
            done += len(batch.index)
            if progress is not None:
                progress(done, len(images))
    figures = metric.compute()
    sheets = [complete(model, each.float() / 255, GenerateOptions()).draw() for each in pixels[:_SHOWN]]
    return CompletionEvaluation(
        model=model.variant,
        data=images.name,
        parameters=sum(value.numel() for value in model.parameters()),
        samples=len(images),
        nats=figures["nats"],
        bits_per_pixel=figures["bits_per_pixel"],
        sheets=tuple(encode(sheet, exact=True) for sheet in sheets),
        seconds=perf_counter() - started,
        device=str(device),
        **skipped_fields([fault.id for fault in faults]),
    )
