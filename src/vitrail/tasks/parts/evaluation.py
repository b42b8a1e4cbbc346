"""Evaluation of a model of parts: one pass over a split."""

from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from vitrail.data.points.point_set import PointCloudSet
from vitrail.data.sampler import ResumableSampler
from vitrail.errors import DataError
from vitrail.parts.model import Model
from vitrail.tasks import points
from vitrail.tasks.classes.class_names import class_names
from vitrail.tasks.classes.result import check_finite
from vitrail.tasks.classes.sections import render_section
from vitrail.tasks.formatting import duration, percent
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.parts.metric import PartMetric
from vitrail.tasks.parts.options import EvaluateOptions
from vitrail.tasks.parts.predictor import need_part_model
from vitrail.tasks.parts.training import PartLoader
from vitrail.tasks.points.drawing import COLORS
from vitrail.tasks.results import ImageExample, MetricCard, Progress, ReportSection
from vitrail.tasks.skipped import skipped_fact, skipped_fields, skipped_sentence
from vitrail.tasks.table import Table

_SHOWN = 512
_SCRIPT = Path(points.__file__).parent / "templates" / "clouds.js"


@dataclass(frozen=True)
class EvaluatedParts:
    """A cloud of the split, kept for the report.

    Args:
        id: its name in the data set.
        accuracy: share of its points whose part is right.
        points: coordinates in thousandths of the radius, x, y, z of each point in turn.
        truth: indices of the points of each part.
        found: indices of the points of each predicted part.
    """

    id: str
    accuracy: float
    points: list[int]
    truth: list[list[int]]
    found: list[list[int]]


@dataclass(frozen=True, kw_only=True)
class PartEvaluation:
    """Evaluation of a model of parts on one split.

    Args:
        model: name of the variant.
        parameters: number of parameters.
        data: name of the data.
        samples: number of clouds.
        points: number of points of each.
        parts: names of the parts.
        ious: IoU of each part over all points; None of a part that does not occur.
        loss: mean cross-entropy of a point, in nats.
        miou: mean of the IoUs of parts that occur.
        accuracy: share of points whose part is right.
        worst: clouds with the most wrong points, worst first.
        seconds: wall time.
        device: device of the model.
        skipped: clouds that could not be read.
        skipped_names: the first of them.
    """

    model: str
    parameters: int
    data: str
    samples: int
    points: int
    parts: list[str]
    ious: list[float | None]
    loss: float
    miou: float
    accuracy: float
    worst: list[EvaluatedParts]
    seconds: float
    device: str
    skipped: int = 0
    skipped_names: tuple[str, ...] = ()

    def metrics(self) -> dict[str, float]:
        """Return loss and headline figures by name."""
        return {"loss": self.loss, "miou": self.miou, "accuracy": self.accuracy}

    def summary(self) -> str:
        """Return the figures in a sentence."""
        return (
            f"Of the points of {self.samples:,} clouds in {self.data}, {percent(self.accuracy)} have the right part;"
            f" the mean IoU of the parts is {percent(self.miou)}."
            f"{skipped_sentence(self.skipped, self.skipped_names, 'cloud')}"
        )

    def tables(self, rows: int) -> list[Table]:
        """Return the figures and the IoU of each part."""
        figures = [["mean IoU", percent(self.miou)], ["points right", percent(self.accuracy)]]
        parts = [[name, percent(iou)] for name, iou in zip(self.parts, self.ious, strict=True)][:rows]
        return [Table("Figures", ("measure", "value"), figures), Table("Parts", ("part", "IoU"), parts)]

    def cards(self) -> list[MetricCard]:
        """Return the headline figures of the report."""
        return [
            MetricCard("Mean IoU", percent(self.miou), f"over {len(self.parts)} parts"),
            MetricCard("Points right", percent(self.accuracy), f"{self.points:,} of each cloud"),
        ]

    def sections(self) -> list[ReportSection]:
        """Return the sections of the report: parts, and clouds that can be turned."""
        rows = [
            (name, percent(iou), color)
            for name, iou, color in zip(self.parts, self.ious, _colors(self.parts), strict=True)
        ]
        values = {"rows": rows, "worst": self.worst, "colors": _colors(self.parts)}
        section = render_section(__package__ or "", "Parts", "parts.html", values)
        return [section._replace(script=_SCRIPT.read_text(encoding="utf-8"))]

    def images_to_explain(self) -> list[ImageExample]:
        """Return no image."""
        return []

    def facts(self) -> dict[str, str]:
        """Return the settings of the evaluation."""
        speed = f"{duration(self.seconds)}, {self.samples / self.seconds:,.0f} clouds per second"
        left_out = skipped_fact(self.skipped, self.skipped_names)
        counts = {"clouds": f"{self.samples:,}", **left_out, "points": f"{self.points:,}"}
        return {"data": self.data, **counts, "time": speed}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        names = list(self.skipped_names)
        return {"format_version": 1, "task": "parts", **asdict(self), "skipped_names": names}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PartEvaluation":
        """Build from the dict of `to_dict`."""
        values = {key: value for key, value in values.items() if key not in ("format_version", "task")}
        names = tuple(values.get("skipped_names", ()))
        worst = [EvaluatedParts(**each) for each in values["worst"]]
        return cls(**{**values, "worst": worst, "skipped_names": names})


def evaluate_parts(
    model: Model, clouds: PointCloudSet, options: EvaluateOptions, progress: Progress | None = None
) -> PartEvaluation:
    """Evaluate a model of parts on a split.

    Raises:
        DataError: a cloud cannot be read or has no parts or one that the model does not know, or a logit is not finite.
    """
    model, started = need_part_model(model), perf_counter()
    names = class_names(model, model.config.num_classes)
    metric = PartMetric(len(names))
    order = ResumableSampler(len(clouds), options.batch, shuffle=False, drop_last=False)
    kept: list[EvaluatedParts] = []
    done = 0
    with inference_mode_for(model) as device:
        for batch in PartLoader(clouds, order, model.sampling, fixed=True).epoch():
            ids = [clouds.ids[i] for i in batch.index.tolist()]
            if int(batch.labels.max()) >= len(names):
                raise DataError(
                    f"{clouds.name} has part {int(batch.labels.max())}; the model knows {len(names)} parts."
                )
            logits = model(batch.points.to(device)).cpu()
            check_finite(logits.flatten(1), ids)
            metric.update((logits,), batch)
            rows = zip(ids, batch.points, batch.labels, logits.argmax(-1), strict=True)
            kept += [_kept(name, x, y, z, len(names)) for name, x, y, z in rows]
            kept = sorted(kept, key=lambda each: each.accuracy)[: options.worst]
            done += len(ids)
            if progress is not None:
                progress(done, len(clouds))
    return PartEvaluation(
        model=model.variant,
        parameters=sum(value.numel() for value in model.parameters()),
        data=clouds.name,
        samples=len(clouds),
        points=model.sampling.points,
        parts=list(names),
        ious=metric.ious(),
        **metric.compute(),
        worst=kept,
        seconds=perf_counter() - started,
        device=str(device),
        **skipped_fields(clouds.skipped),
    )


def _kept(name: str, points: torch.Tensor, truth: torch.Tensor, found: torch.Tensor, parts: int) -> EvaluatedParts:
    accuracy = float((truth == found).float().mean())
    shown = slice(0, _SHOWN)
    coordinates = (1000 * points[shown]).round().int().flatten().tolist()
    return EvaluatedParts(name, accuracy, coordinates, _groups(truth[shown], parts), _groups(found[shown], parts))


def _groups(numbers: torch.Tensor, parts: int) -> list[list[int]]:
    """Return the indices of the points of each part."""
    return [(numbers == part).nonzero().flatten().tolist() for part in range(parts)]


def _colors(parts: list[str]) -> list[str]:
    return [COLORS[number % len(COLORS)] for number in range(len(parts))]
