"""Result of the evaluation of a restorer, for tables, JSON files and reports."""

from dataclasses import asdict, dataclass
from importlib.resources import files
from math import isfinite
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from vitrail.tasks.formatting import duration, format_value
from vitrail.tasks.restore.examples import Crop, RestoredExample
from vitrail.tasks.results import ImageExample, MetricCard, ReportSection
from vitrail.tasks.skipped import skipped_names_text, skipped_sentence
from vitrail.tasks.table import Table


@dataclass(frozen=True)
class ImageFigures:
    """Figures of one image.

    Args:
        id: name of the image.
        psnr: PSNR in dB; None if the image has no error.
        ssim: SSIM; None for an image smaller than its window.
        psnr_input: PSNR of the degraded image, enlarged bicubically if it is smaller.
    """

    id: str
    psnr: float | None
    ssim: float | None
    psnr_input: float | None


@dataclass(frozen=True)
class RestorationEvaluation:
    """Evaluation of a restorer on images.

    Args:
        model: name of the variant.
        parameters: number of parameters.
        data: name of the data.
        loss: mean absolute error, of pixels in 0..1.
        psnr: mean PSNR in dB.
        ssim: mean SSIM, or None.
        psnr_input: mean PSNR of the degraded images.
        images: figures by image.
        degradation: degradation of the inputs, or `pairs`.
        protocol: what PSNR and SSIM measure.
        examples: images for the report.
        seconds: wall time.
        tiling: tiling that was used, with its seam error if there is one.
        device: device and precision.
        skipped: files that were left out.
        skipped_names: the first of them.
    """

    model: str
    parameters: int
    data: str
    loss: float
    psnr: float
    ssim: float | None
    psnr_input: float
    images: tuple[ImageFigures, ...]
    degradation: str
    protocol: str
    examples: tuple[RestoredExample, ...]
    seconds: float
    tiling: str
    device: str
    skipped: int = 0
    skipped_names: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """Number of images."""
        return len(self.images)

    def metrics(self) -> dict[str, float]:
        """Return loss, PSNR, SSIM and the gain over the degraded images."""
        figures = {"loss": self.loss, "psnr": self.psnr, "psnr_gain": self.psnr - self.psnr_input}
        return figures if self.ssim is None else {**figures, "ssim": self.ssim}

    def summary(self) -> str:
        """Return the figures in a few sentences."""
        similar = "" if self.ssim is None else f" and {self.ssim:.4f} SSIM"
        return (
            f"{self.samples:,} images of {self.data} are restored at {self.psnr:.2f} dB PSNR"
            f"{similar}, {self.psnr - self.psnr_input:+.2f} dB against"
            f" the input, bicubically enlarged if smaller ({self.protocol})."
            f"{skipped_sentence(self.skipped, self.skipped_names)}"
        )

    def tables(self, rows: int) -> list[Table]:
        """Return the means, and the images with the lowest PSNR."""
        found = sorted(self.images, key=lambda each: each.psnr if each.psnr is not None else float("inf"))
        more = [f"({len(found) - rows} images with a higher PSNR are not shown)"] if len(found) > rows else []
        means = [["PSNR", _db(self.psnr), self.protocol]]
        means += [["SSIM", f"{self.ssim:.4f}", ""]] if self.ssim is not None else []
        means += [["PSNR of the input", _db(self.psnr_input), self.degradation], ["tiling", self.tiling, ""]]
        columns = ["image", "PSNR", "SSIM", "input", "gain"]
        table = [[r.id, _db(r.psnr), _ssim(r.ssim), _db(r.psnr_input), _gain(r)] for r in found[:rows]]
        return [
            Table("", ["measure", "value", ""], means, right=["value"]),
            Table("", columns, table, columns[1:], more),
        ]

    def cards(self) -> list[MetricCard]:
        """Return the headline figures of the report."""
        cards = [MetricCard("PSNR", _db(self.psnr), self.protocol)]
        cards += [
            MetricCard("Gain", f"{self.psnr - self.psnr_input:+.2f} dB", f"over {_db(self.psnr_input)} of the input")
        ]
        return [*cards, MetricCard("SSIM", _ssim(self.ssim), f"{self.samples} images")]

    def sections(self) -> list[ReportSection]:
        """Return the sections of the report: PSNR by image, and images side by side."""
        return [
            ReportSection("PSNR by image", _render("images", self)),
            ReportSection("Side by side", _render("examples", self)),
        ]

    def images_to_explain(self) -> list[ImageExample]:
        """Return none: the report shows crops."""
        return []

    def facts(self) -> dict[str, str]:
        """Return how it was measured."""
        return {
            "data": self.data,
            "images": format_value(self.samples),
            "left out": ": ".join(
                [format_value(self.skipped), *filter(None, [skipped_names_text(self.skipped, self.skipped_names)])]
            ),
            "degradation": self.degradation,
            "measured": self.protocol,
            "tiling": self.tiling,
            "device": self.device,
            "time": duration(self.seconds),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {"format_version": 1, "task": "restore", **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RestorationEvaluation":
        """Build from the dict of `to_dict`."""
        values = {key: value for key, value in values.items() if key not in ("format_version", "task")}
        values["images"] = tuple(ImageFigures(**each) for each in values["images"])
        values["skipped_names"] = tuple(values.get("skipped_names", ()))
        values["examples"] = tuple(
            RestoredExample(**{**each, "crops": tuple(Crop(**crop) for crop in each["crops"])})
            for each in values["examples"]
        )
        return cls(**values)


def finite(value: float) -> float | None:
    """Return a number that JSON can hold, else None.

    Example:
        >>> finite(1.5), finite(float("inf"))
        (1.5, None)
    """
    return value if isfinite(value) else None


def _db(value: float | None) -> str:
    return "no error" if value is None else f"{value:.2f} dB"


def _ssim(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _gain(each: ImageFigures) -> str:
    return "" if each.psnr is None or each.psnr_input is None else f"{each.psnr - each.psnr_input:+.2f}"


def _render(name: str, evaluation: RestorationEvaluation) -> Markup:
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page.filters |= {"db": _db, "ssim": _ssim}
    text = (files("vitrail.tasks.restore") / "templates" / f"{name}.html").read_text()
    return Markup(page.from_string(text).render(evaluation=evaluation))
