"""Result of the evaluation of a detector, for tables, JSON files and reports."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from markupsafe import Markup

from vitrail.tasks.formatting import duration, percent
from vitrail.tasks.results import ImageExample, MetricCard, ReportSection
from vitrail.tasks.skipped import skipped_fact, skipped_sentence
from vitrail.tasks.svg_chart import Series, line_chart
from vitrail.tasks.table import Table

TITLES = {
    "ap": "AP (overlap 0.50 to 0.95)",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP, objects under 32 x 32",
    "ap_medium": "AP, 32 x 32 to 96 x 96",
    "ap_large": "AP, larger objects",
    "ar1": "recall, 1 detection an image",
    "ar10": "recall, 10 detections",
    "ar100": "recall, 100 detections",
}


@dataclass(frozen=True)
class ClassPrecision:
    """Figures of one class; `curve` is the precision at overlap 0.5 at recalls of 0.00, 0.01, ..., 1.00."""

    name: str
    objects: int
    ap: float
    ap50: float
    recall50: float
    curve: tuple[float, ...]


@dataclass(frozen=True)
class DrawnImage:
    """An image kept for the report, drawn with its detections and with its true boxes, as `data:` URLs."""

    id: str
    missed: int
    wrong: int
    found: str
    true: str

    def __post_init__(self) -> None:
        for url in (self.found, self.true):
            if not url.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")):
                raise ValueError(f"the image of {self.id} is not a data: URL of an image")


@dataclass(frozen=True)
class DetectionEvaluation:
    """Figures of a detector on a split.

    Args:
        model: variant.
        data: name of the split.
        parameters: number of parameters.
        images: images evaluated.
        skipped: images that could not be read.
        labels: class names.
        figures: COCO's figures, shares of one; -1 if there are no such objects.
        classes: figures by class.
        worst: images with the most faults.
        seconds: duration.
        precision: fp32 or bf16.
        device: device of the model.
        image_size: longest side of the input.
        skipped_names: the first images that could not be read.
    """

    model: str
    data: str
    parameters: int
    images: int
    skipped: int
    labels: tuple[str, ...]
    figures: dict[str, float]
    classes: tuple[ClassPrecision, ...]
    worst: tuple[DrawnImage, ...]
    seconds: float
    precision: str
    device: str
    image_size: int
    skipped_names: tuple[str, ...] = ()

    def metrics(self) -> dict[str, float]:
        """Return AP50 and AP."""
        return {"map50": self.figures["ap50"], "map": self.figures["ap"]}

    def summary(self) -> str:
        """Return a few sentences."""
        objects = sum(each.objects for each in self.classes)
        weakest = min((each for each in self.classes if each.objects), key=lambda each: each.ap50, default=None)
        tail = "" if weakest is None else f" The weakest class is {weakest.name} (AP50 {percent(weakest.ap50)})."
        return (
            f"{self.model} finds the {objects:,} objects of {self.images:,} images with AP50"
            f" {percent(self.figures['ap50'])} and AP {percent(self.figures['ap'])}.{tail}"
            f"{skipped_sentence(self.skipped, self.skipped_names)}"
        )

    def tables(self, rows: int) -> list[Table]:
        """Return COCO's figures, and the classes."""
        figures = [[TITLES[name], _shown(value)] for name, value in self.figures.items()]
        classes = [
            [each.name, f"{each.objects:,}", percent(each.ap50), percent(each.ap), percent(each.recall50)]
            for each in sorted(self.classes, key=lambda each: each.ap50)[:rows]
        ]
        columns = ["class", "objects", "AP50", "AP", "recall at 0.5"]
        return [
            Table("Average precision", ["measure", "value"], figures, right=["value"]),
            Table("Classes, the weakest first", columns, classes, right=columns[1:]),
        ]

    def cards(self) -> list[MetricCard]:
        """Return the headline figures of the report."""
        objects = sum(each.objects for each in self.classes)
        return [
            MetricCard("AP50", percent(self.figures["ap50"]), "average precision at overlap (IoU) 0.5"),
            MetricCard("AP", percent(self.figures["ap"]), "mean over overlaps of 0.50 to 0.95 (COCO)"),
            MetricCard("Objects", f"{objects:,}", f"{self.images:,} images"),
        ]

    def sections(self) -> list[ReportSection]:
        """Return the sections of the report."""
        figure = Markup("<figure>{}<figcaption>{}, AP50 {}</figcaption></figure>")
        charts = [
            figure.format(_curve(each.curve), each.name, percent(each.ap50)) for each in self.classes if each.curve
        ]
        grid = Markup('<div class="charts">{}</div>')
        body = [ReportSection("Precision and recall at overlap 0.5", grid.format(Markup("").join(charts)))]
        if self.worst:
            tile = Markup(
                "<figure><img src='{}' alt='detections in {}'><img src='{}' alt='true boxes in {}'>"
                "<figcaption>{}: {} missed, {} wrong. First the detections, then the true boxes.</figcaption></figure>"
            )
            tiles = [tile.format(e.found, e.id, e.true, e.id, e.id, e.missed, e.wrong) for e in self.worst]
            body.append(ReportSection("Images with the most faults", grid.format(Markup("").join(tiles))))
        return body

    def images_to_explain(self) -> list[ImageExample]:
        """Return nothing: boxes are shown in the sections."""
        return []

    def facts(self) -> dict[str, str]:
        """Return how it was measured."""
        return {
            "data": f"{self.data}, {self.images:,} images",
            **skipped_fact(self.skipped, self.skipped_names),
            "average precision": "COCO's definition, by faster-coco-eval, in pixels of the source images",
            "input": f"longest side {self.image_size} pixels",
            "computed": f"in {self.precision} on {self.device} in {duration(self.seconds)}",
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {"task": "detect", **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DetectionEvaluation":
        """Read what `to_dict` returned."""
        own = {key: value for key, value in values.items() if key != "task"}
        own["classes"] = tuple(ClassPrecision(**{**each, "curve": tuple(each["curve"])}) for each in own["classes"])
        own["skipped_names"] = tuple(values.get("skipped_names", ()))
        own["worst"] = tuple(DrawnImage(**each) for each in own["worst"])
        return cls(**{**own, "labels": tuple(own["labels"])})


def _curve(precision: Sequence[float]) -> Markup:
    """Draw precision over recall; the chart escapes its texts."""
    series = Series("precision", [i / 100 for i in range(101)], precision)
    return Markup(line_chart([series], "recall", "precision"))


def _shown(value: float) -> str:
    return "no such objects" if value < 0 else percent(value)
