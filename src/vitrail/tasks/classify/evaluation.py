"""Result of the evaluation of an image classifier, for tables, JSON files and reports."""

from dataclasses import dataclass
from typing import Any, ClassVar

from markupsafe import Markup

from vitrail.tasks.classes.evaluation import ClassEvaluation
from vitrail.tasks.classes.sections import render_section
from vitrail.tasks.classes.summary import arithmetic
from vitrail.tasks.formatting import duration, format_value, percent
from vitrail.tasks.results import ImageExample, ReportSection
from vitrail.tasks.skipped import skipped_fact


@dataclass(frozen=True)
class EvaluatedImage:
    """An image of the split, kept for the report.

    Args:
        id: its name in the data set.
        label: the true class.
        predicted: the predicted class.
        confidence: probability of the predicted class.
        loss: negative log-likelihood of the true class, in nats.
        image: the model's input (after resize and crop) as a `data:` URL.
    """

    id: str
    label: str
    predicted: str
    confidence: float
    loss: float
    image: str

    def __post_init__(self) -> None:
        if not self.image.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")):
            raise ValueError(f"{self.image[:40]!r} is not an image")  # a page would load it from its URL

    def explained(self) -> ImageExample:
        """Return the image for the section of the report with explanations."""
        confidence = Markup('<span class="soft">{}</span>').format(percent(self.confidence, 0))
        if self.label == self.predicted:
            caption = Markup('<span class="tag right">right</span> <strong>{}</strong>').format(self.label)
        else:
            caption = Markup(
                '<span class="tag said">wrong</span> <strong>{}</strong> taken for <strong>{}</strong>'
            ).format(self.label, self.predicted)
        return ImageExample(self.image, f"An image of {self.label}", caption + Markup(" ") + confidence)


@dataclass(frozen=True, kw_only=True)
class ClassificationEvaluation(ClassEvaluation):
    """Evaluation of an image classifier on one split.

    Args:
        errors: wrong predictions with the highest loss, worst first.
        examples: correct predictions, one per class.
        images_per_second: throughput.
        image_size: side of the input images.
    """

    task: ClassVar[str] = "classify"
    nouns: ClassVar[str] = "images"
    unit: ClassVar[str] = "images"

    errors: tuple[EvaluatedImage, ...]
    examples: tuple[EvaluatedImage, ...]
    images_per_second: float
    image_size: int

    @property
    def throughput(self) -> float:
        """Images per second."""
        return self.images_per_second

    def sections(self) -> list[ReportSection]:
        """Return the sections of the report: confusion, classes, calibration, errors."""
        package = __package__ or ""
        return [*super().sections(), render_section(package, "Worst errors", "errors.html", {"evaluation": self})]

    def images_to_explain(self) -> list[ImageExample]:
        """Return four right predictions, spread over the classes, and the four worst errors."""
        right = self.examples[:: max(1, len(self.examples) // 4)][:4]
        return [each.explained() for each in (*right, *self.errors[:4])]

    def facts(self) -> dict[str, str]:
        """Return the settings of the evaluation."""
        return {
            "data": self.data,
            "images": format_value(self.samples),
            **skipped_fact(self.skipped, self.skipped_names),
            "image size": f"{self.image_size} × {self.image_size}",
            "device, precision": f"{self.device}, {arithmetic(self)}",
            "time": f"{duration(self.seconds)}, {self.images_per_second:,.0f} images per second",
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ClassificationEvaluation":
        """Build from the dict of `to_dict`."""
        values = cls.fields_from(values)
        values |= {
            key: tuple(EvaluatedImage(**_renamed(each)) for each in values[key]) for key in ("errors", "examples")
        }
        return cls(**values)


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an image; older evaluations have `picture` for `image`."""
    return {"image" if key == "picture" else key: value for key, value in values.items()}
