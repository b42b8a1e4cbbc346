"""Result of the evaluation of a segmenter, for tables, JSON files and reports."""

from dataclasses import asdict, dataclass
from math import isnan
from typing import Any, NamedTuple

import numpy as np

from vitrail.tasks.formatting import duration, format_value, model_words, percent
from vitrail.tasks.results import ImageExample, MetricCard, ReportSection
from vitrail.tasks.segment.metric import PixelScores, pixel_scores
from vitrail.tasks.segment.sections import report_sections
from vitrail.tasks.skipped import skipped_fact, skipped_sentence
from vitrail.tasks.table import Table


class ImageScore(NamedTuple):
    """Scores of one image: name, mIoU over its own classes, pixel accuracy, labelled pixels."""

    id: str
    miou: float
    accuracy: float
    pixels: int


@dataclass(frozen=True)
class SegmentEvaluation:
    """Evaluation of a segmenter on one split.

    Args:
        model: name of the variant.
        parameters: number of parameters.
        data: name of the data.
        samples: number of images; each is evaluated once, at the size of its mask.
        labels: class names.
        confusion: `confusion[i][j]` is the number of pixels of class i predicted as class j; void is not in it.
        loss: mean cross-entropy of the labelled pixels.
        interval: 95 % interval of the mIoU by resampling images, or None.
        images: scores of each image.
        worst: images with the least pixel accuracy: `id`, `miou`, `accuracy`, and `data:` URLs `truth`, `found`,
            `errors`.
        seconds: wall time, including data loading.
        device: device of the model.
        precision: compute precision.
        form: `plain`, or `fast` if the optimized model ran.
        inference: whole images or windows, with or without the mirror image.
        skipped: samples that could not be read.
        skipped_names: the first of them.
    """

    model: str
    parameters: int
    data: str
    samples: int
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    loss: float
    interval: tuple[float, float] | None
    images: tuple[ImageScore, ...]
    worst: tuple[dict[str, Any], ...]
    seconds: float
    device: str
    precision: str
    form: str
    inference: str
    skipped: int = 0
    skipped_names: tuple[str, ...] = ()

    @property
    def scores(self) -> PixelScores:
        """IoU, recall and precision of each class, pooled over the split."""
        return pixel_scores(np.array(self.confusion))

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that are labelled or predicted, pooled over the split."""
        return self.scores.miou

    @property
    def pixel_accuracy(self) -> float:
        """Share of the labelled pixels that are right."""
        return self.scores.accuracy

    def metrics(self) -> dict[str, float]:
        """Return loss and headline figures by name."""
        scores = self.scores
        figures = {"miou": scores.miou, "pixel_accuracy": scores.accuracy, "mean_accuracy": scores.mean_accuracy}
        return {"loss": self.loss, **figures}

    def summary(self) -> str:
        """Return the figures in a few sentences."""
        found = self.class_rows()
        worst = min(found, key=lambda row: row[1], default=None)
        text = (
            f"On {self.samples:,} images of {self.data} the mean IoU of {len(found)} classes is {percent(self.miou)}"
            f"{self._interval()}, and {percent(self.pixel_accuracy)} of the labelled pixels are right."
        )
        if worst is not None:
            text += f" The weakest class is “{worst[0]}” ({percent(worst[1])})."
        return text + skipped_sentence(self.skipped, self.skipped_names)

    def class_rows(self) -> list[tuple[str, float, float, float, int]]:
        """Return name, IoU, recall, precision and labelled pixels of each class that is labelled or predicted."""
        scores, pixels = self.scores, np.array(self.confusion).sum(1)
        rows = zip(self.labels, scores.iou, scores.recall, scores.precision, pixels, strict=True)
        return [(name, float(i), float(r), float(p), int(n)) for name, i, r, p, n in rows if not isnan(i)]

    def tables(self, rows: int) -> list[Table]:
        """Return the tables that the command prints: figures, and classes from the weakest on."""
        scores, found = self.scores, sorted(self.class_rows(), key=lambda row: row[1])
        speed = f"{self.samples / self.seconds:,.1f} images/s on {self.device}"
        figures = [
            ["mean IoU", percent(scores.miou, 2), f"{len(found)} classes{self._interval()}"],
            ["pixel accuracy", percent(scores.accuracy, 2), "share of the labelled pixels"],
            ["mean accuracy", percent(scores.mean_accuracy, 2), "mean recall of the classes"],
            ["loss", f"{self.loss:.4f}", "mean over labelled pixels, in nats"],
            ["images", f"{self.samples:,}", f"{self.data}, in {duration(self.seconds)} ({speed})"],
            ["inference", self.inference, model_words(self.precision, self.form)],
        ]
        cells = [[name, *map(_share, shares), f"{pixels:,}"] for name, *shares, pixels in found[:rows]]
        columns = ["class", "IoU", "recall", "precision", "pixels"]
        hidden = [f"({len(found) - rows} classes with a higher IoU are not shown)"] if len(found) > rows else []
        return [
            Table("", ["measure", "value", ""], figures, right=["value"]),
            Table("", columns, cells, columns[1:], hidden),
        ]

    def cards(self) -> list[MetricCard]:
        """Return the headline figures of the report."""
        low_high = self._interval().strip(" ()") or f"{len(self.class_rows())} classes, pooled"
        return [
            MetricCard("Mean IoU", percent(self.miou), low_high),
            MetricCard("Pixel accuracy", percent(self.pixel_accuracy), "share of the labelled pixels"),
            MetricCard("Mean accuracy", percent(self.scores.mean_accuracy), "mean recall of the classes"),
        ]

    def sections(self) -> list[ReportSection]:
        """Return the sections of the report: classes, confusions, worst images."""
        return report_sections(self)

    def images_to_explain(self) -> list[ImageExample]:
        """Return no images: a heatmap of one class is explained by `vitrail explain` on request."""
        return []

    def facts(self) -> dict[str, str]:
        """Return the settings of the evaluation."""
        return {
            "data": self.data,
            "images": format_value(self.samples),
            **skipped_fact(self.skipped, self.skipped_names),
            "inference": self.inference,
            "device, precision": f"{self.device}, {model_words(self.precision, self.form)}",
            "time": duration(self.seconds),
        }

    def confused(self, count: int = 10) -> list[tuple[str, str, float]]:
        """Return the most frequent confusions: true class, predicted class, share of the true class's pixels."""
        matrix = np.array(self.confusion, dtype=np.float64)
        found = [
            (matrix[i, j], self.labels[i], self.labels[j], matrix[i, j] / matrix[i].sum())
            for i, j in zip(*np.nonzero(matrix), strict=True)
            if i != j
        ]
        return [(truth, taken, share) for _, truth, taken, share in sorted(found, reverse=True)[:count]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        values = asdict(self)
        values["labels"] = list(self.labels)
        values["confusion"] = [list(row) for row in self.confusion]
        values["interval"] = None if self.interval is None else list(self.interval)
        values["skipped_names"] = list(self.skipped_names)
        values["images"] = [[_json(value) for value in image] for image in self.images]
        values["worst"] = [{key: _json(value) for key, value in each.items()} for each in self.worst]
        return {"format_version": 1, "task": "segment", "miou": _json(self.miou), **values}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SegmentEvaluation":
        """Build from the dict of `to_dict`."""
        values = {key: value for key, value in values.items() if key not in ("format_version", "task", "miou")}
        values["labels"] = tuple(values["labels"])
        values["confusion"] = tuple(tuple(row) for row in values["confusion"])
        values["interval"] = None if values["interval"] is None else tuple(values["interval"])
        values["images"] = tuple(
            ImageScore(name, _number(miou), _number(accuracy), pixels)
            for name, miou, accuracy, pixels in values["images"]
        )
        values["worst"] = tuple(values["worst"])
        values["skipped_names"] = tuple(values.get("skipped_names", ()))
        return cls(**values)

    def _interval(self) -> str:
        if self.interval is None:
            return ""
        return f" (95% interval {percent(self.interval[0])} to {percent(self.interval[1])})"


def _share(value: float) -> str:
    return percent(None if isnan(value) else value)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _json(value: Any) -> Any:
    """Return None for NaN, which JSON does not have."""
    return None if isinstance(value, float) and isnan(value) else value
