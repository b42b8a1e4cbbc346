"""Result of the evaluation of a classifier, for tables, JSON files and reports."""

from dataclasses import asdict, dataclass
from typing import Any

from markupsafe import Markup

from vitrail.tasks.classify.calibration import Calibration
from vitrail.tasks.classify.scores import ClassFigures
from vitrail.tasks.classify.sections import metric_cards, report_sections
from vitrail.tasks.classify.summary import arithmetic, evaluation_tables, summary_text
from vitrail.tasks.confidence_interval import Rate
from vitrail.tasks.formatting import duration, format_value, percent
from vitrail.tasks.results import ImageExample, MetricCard, ReportSection
from vitrail.tasks.table import Table


@dataclass(frozen=True)
class EvaluatedImage:
    """An image of the split, kept for the report.

    Args:
        id: its name in the data set.
        label: the true class.
        predicted: the predicted class.
        confidence: probability of the predicted class.
        loss: negative log-likelihood of the true class, in nats.
        picture: the model's input (after resize and crop) as a `data:` URL.
    """

    id: str
    label: str
    predicted: str
    confidence: float
    loss: float
    picture: str

    def __post_init__(self) -> None:
        if not self.picture.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")):
            raise ValueError(f"{self.picture[:40]!r} is not an image")  # a page would load it from its URL

    def explained(self) -> ImageExample:
        """Return the image for the section of the report with explanations."""
        confidence = Markup('<span class="soft">{}</span>').format(percent(self.confidence, 0))
        if self.label == self.predicted:
            caption = Markup('<span class="tag right">right</span> <strong>{}</strong>').format(self.label)
        else:
            caption = Markup(
                '<span class="tag said">wrong</span> <strong>{}</strong> taken for <strong>{}</strong>'
            ).format(self.label, self.predicted)
        return ImageExample(self.picture, f"An image of {self.label}", caption + Markup(" ") + confidence)


@dataclass(frozen=True)
class ClassificationEvaluation:
    """Evaluation of a classifier on one split.

    Args:
        model: name of the variant.
        parameters: number of parameters.
        data: name of the data.
        samples: number of images; each is evaluated once.
        labels: names of the model's classes.
        top1: top-1 accuracy, with its 95 % confidence interval.
        top5: top-5 accuracy; None for five classes or fewer, for which it is always 1.
        macro_f1: mean F1 over the classes that occur.
        classes: precision, recall and F1 of each class.
        confusion: `confusion[i][j]` is the number of images of class i predicted as class j.
        calibration: calibration metrics.
        errors: wrong predictions with the highest loss, worst first.
        examples: correct predictions, one per class.
        seconds: wall time, including data loading.
        images_per_second: throughput.
        batch: batch size.
        device: device of the model.
        precision: compute precision.
        image_size: side of the input images.
        form: `plain`, or `fast` if the optimized model of `vitrail.optimize` ran.
        speedup: speedup of the optimized model over the plain one, measured on the first few images.
    """

    model: str
    parameters: int
    data: str
    samples: int
    labels: tuple[str, ...]
    top1: Rate
    top5: Rate | None
    macro_f1: float
    classes: tuple[ClassFigures, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration: Calibration
    errors: tuple[EvaluatedImage, ...]
    examples: tuple[EvaluatedImage, ...]
    seconds: float
    images_per_second: float
    batch: int
    device: str
    precision: str
    image_size: int
    form: str = "plain"
    speedup: float | None = None

    def metrics(self) -> dict[str, float]:
        """Return loss and headline figures by name, for `summary.json` and the model card."""
        figures = {"loss": self.calibration.nll, "top1": self.top1.value or 0.0, "macro_f1": self.macro_f1}
        if self.top5 is not None:
            figures["top5"] = self.top5.value or 0.0
        return figures | {"ece": self.calibration.ece, "brier": self.calibration.brier}

    def summary(self) -> str:
        """Return the figures in a few sentences."""
        return summary_text(self)

    def tables(self, rows: int) -> list[Table]:
        """Return the tables that the command prints: figures, classes, commonest mistakes."""
        return evaluation_tables(self, rows)

    def cards(self) -> list[MetricCard]:
        """Return the headline figures of the report."""
        return metric_cards(self)

    def sections(self) -> list[ReportSection]:
        """Return the sections of the report: confusion, classes, calibration, errors."""
        return report_sections(self)

    def images_to_explain(self) -> list[ImageExample]:
        """Return four right predictions, spread over the classes, and the four worst errors."""
        right = self.examples[:: max(1, len(self.examples) // 4)][:4]
        return [each.explained() for each in (*right, *self.errors[:4])]

    def facts(self) -> dict[str, str]:
        """Return the settings of the evaluation."""
        return {
            "data": self.data,
            "images": format_value(self.samples),
            "image size": f"{self.image_size} × {self.image_size}",
            "device, arithmetic": f"{self.device}, {arithmetic(self)}",
            "time": f"{duration(self.seconds)}, {self.images_per_second:,.0f} images per second",
        }

    @property
    def met(self) -> tuple[ClassFigures, ...]:
        """The classes that occur among labels or predictions."""
        return tuple(each for each in self.classes if each.support or each.predicted)

    def most_confused(self, count: int = 10) -> list[tuple[str, str, int]]:
        """Return the most frequent confusions: true class, predicted class, count."""
        pairs = [
            (self.labels[i], self.labels[j], n)
            for i, row in enumerate(self.confusion)
            for j, n in enumerate(row)
            if n and i != j
        ]
        return sorted(pairs, key=lambda pair: -pair[2])[:count]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {"format_version": 1, "task": "classify", **_plain(asdict(self))}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ClassificationEvaluation":
        """Build from the dict of `to_dict`."""
        values = {key: value for key, value in values.items() if key not in ("format_version", "task")}
        values["top1"] = Rate(*values["top1"])
        values["top5"] = None if values["top5"] is None else Rate(*values["top5"])
        values["labels"] = tuple(values["labels"])
        values["classes"] = tuple(ClassFigures.from_dict(each) for each in values["classes"])
        values["confusion"] = tuple(tuple(row) for row in values["confusion"])
        values["calibration"] = Calibration.from_dict(values["calibration"])
        values |= {key: tuple(EvaluatedImage(**each) for each in values[key]) for key in ("errors", "examples")}
        return cls(**values)


def _plain(value: Any) -> Any:
    """Convert the tuples of a dataclass to lists, so that `to_dict` survives a JSON round trip unchanged."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value
