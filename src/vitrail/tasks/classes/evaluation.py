"""Result of the evaluation of a classifier of any input, for tables, JSON files and reports."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from vitrail.tasks.classes.calibration import Calibration
from vitrail.tasks.classes.scores import ClassFigures
from vitrail.tasks.classes.sections import metric_cards, report_sections
from vitrail.tasks.classes.summary import arithmetic, evaluation_tables, summary_text
from vitrail.tasks.confidence_interval import Rate
from vitrail.tasks.formatting import duration, format_value
from vitrail.tasks.results import ImageExample, MetricCard, ReportSection
from vitrail.tasks.skipped import skipped_fact, skipped_sentence
from vitrail.tasks.table import Table


@dataclass(frozen=True, kw_only=True)
class ClassEvaluation:
    """Evaluation of a classifier on one split; a task adds its examples and settings.

    Args:
        model: name of the variant.
        parameters: number of parameters.
        data: name of the data.
        samples: number of samples; each is evaluated once.
        labels: names of the model's classes.
        top1: top-1 accuracy, with its 95 % confidence interval.
        top5: top-5 accuracy; None for five classes or fewer, for which it is always 1.
        macro_f1: mean F1 over the classes that occur.
        classes: precision, recall and F1 of each class.
        confusion: `confusion[i][j]` is the number of samples of class i predicted as class j.
        calibration: calibration metrics.
        seconds: wall time, including data loading.
        batch: batch size.
        device: device of the model.
        precision: compute precision.
        form: `plain`, or `fast` if the optimized model of `vitrail.optimize` ran.
        speedup: speedup of the optimized model over the plain one, measured on the first few samples.
        skipped: samples that could not be used.
        skipped_names: the first of them.
    """

    task: ClassVar[str]
    """Name of its task."""
    nouns: ClassVar[str] = "samples"
    """Plural of a sample, in sentences."""
    unit: ClassVar[str] = "samples"
    """Plural of a sample, in tables and throughput."""

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
    seconds: float
    batch: int
    device: str
    precision: str
    form: str = "plain"
    speedup: float | None = None
    skipped: int = 0
    skipped_names: tuple[str, ...] = ()

    @property
    def throughput(self) -> float:
        """Samples per second."""
        return self.samples / self.seconds

    def metrics(self) -> dict[str, float]:
        """Return loss and headline figures by name, for `summary.json` and the model card."""
        figures = {"loss": self.calibration.nll, "top1": self.top1.value or 0.0, "macro_f1": self.macro_f1}
        if self.top5 is not None:
            figures["top5"] = self.top5.value or 0.0
        return figures | {"ece": self.calibration.ece, "brier": self.calibration.brier}

    def summary(self) -> str:
        """Return the figures in a few sentences, and what was left out."""
        noun = self.nouns.removesuffix("s")
        return summary_text(self) + skipped_sentence(self.skipped, self.skipped_names, noun)

    def tables(self, rows: int) -> list[Table]:
        """Return the tables that the command prints: figures, classes, commonest mistakes."""
        return evaluation_tables(self, rows)

    def cards(self) -> list[MetricCard]:
        """Return the headline figures of the report."""
        return metric_cards(self)

    def sections(self) -> list[ReportSection]:
        """Return the sections of the report: confusion, classes, calibration."""
        return report_sections(self)

    def images_to_explain(self) -> list[ImageExample]:
        """Return no image."""
        return []

    def facts(self) -> dict[str, str]:
        """Return the settings of the evaluation."""
        return {
            "data": self.data,
            self.unit: format_value(self.samples),
            **skipped_fact(self.skipped, self.skipped_names),
            "device, precision": f"{self.device}, {arithmetic(self)}",
            "time": f"{duration(self.seconds)}, {self.throughput:,.0f} {self.unit} per second",
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
        return {"format_version": 1, "task": self.task, **_plain(asdict(self))}

    @classmethod
    def fields_from(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return the fields in a `to_dict`; those that a task adds are as JSON has them."""
        values = {key: value for key, value in values.items() if key not in ("format_version", "task")}
        values["top1"] = Rate(*values["top1"])
        values["top5"] = None if values["top5"] is None else Rate(*values["top5"])
        values["labels"] = tuple(values["labels"])
        values["classes"] = tuple(ClassFigures.from_dict(each) for each in values["classes"])
        values["confusion"] = tuple(tuple(row) for row in values["confusion"])
        values["calibration"] = Calibration.from_dict(values["calibration"])
        values["skipped_names"] = tuple(values.get("skipped_names", ()))
        return values


def _plain(value: Any) -> Any:
    """Convert the tuples of a dataclass to lists, so that `to_dict` survives a JSON round trip unchanged."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value
