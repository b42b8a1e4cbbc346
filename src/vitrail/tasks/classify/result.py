"""Result type of classification: the likeliest classes of an image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vitrail.data.image_io import open_image
from vitrail.errors import DataError

_PAPER, _INK, _BAR, _TRACK = "#ffffff", "#1d232b", "#2f6db3", "#e6eaef"


@dataclass(frozen=True)
class Classification:
    """The likeliest classes of one image, best first; or the reason why there are none.

    Args:
        path: file of the image, or its given name.
        labels: names of the classes.
        probabilities: their probabilities. They sum to one only over all classes.
        indices: their indices in the model's output.
        error: reason why the image could not be read; the other fields are then empty.
        picture: the image itself, if it came from memory and not from a file.
        form: implementation and precision that ran, with the reason; empty if unknown.

    Example:
        >>> cat = Classification("cat.jpg", ("tabby", "lynx"), (0.9, 0.1), (281, 287))
        >>> cat.label, cat.top(1)
        ('tabby', [('tabby', 0.9)])
        >>> print(cat)
        cat.jpg: tabby 90.0%, lynx 10.0%
    """

    path: str
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    indices: tuple[int, ...] = ()
    error: str | None = None
    picture: Image.Image | None = field(default=None, repr=False, compare=False)
    form: str = field(default="", repr=False, compare=False)

    @property
    def label(self) -> str:
        """Name of the likeliest class.

        Raises:
            DataError: the image could not be read.
        """
        return self._answer().labels[0]

    @property
    def probability(self) -> float:
        """Probability of the likeliest class."""
        return self._answer().probabilities[0]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the `k` likeliest of the kept classes with their probabilities, best first."""
        answer = self._answer()
        return list(zip(answer.labels[:k], answer.probabilities[:k], strict=True))

    def cells(self) -> tuple[str, ...]:
        """Return label and probability of each class that was kept, for CSV."""
        kept = zip(self.labels, self.probabilities, strict=True)
        return tuple(cell for label, p in kept for cell in (label, f"{p:.6f}"))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        kept = zip(self.labels, self.probabilities, self.indices, strict=True)
        best = [{"label": label, "probability": round(p, 6), "index": index} for label, p, index in kept]
        return {"path": self.path, "label": self.label, "probability": round(self.probability, 6), "top": best}

    def draw(self, k: int = 3, width: int = 480) -> Image.Image:
        """Return the image above its `k` likeliest classes, each with a bar of its probability.

        Args:
            k: number of classes to show.
            width: width of the drawing in pixels; the image is scaled to it.
        """
        best = self.top(k)
        picture = self.picture.convert("RGB") if self.picture is not None else open_image(self.path)
        smooth = Image.Resampling.NEAREST if picture.width * 4 <= width else Image.Resampling.LANCZOS
        picture = picture.resize((width, max(1, round(picture.height * width / picture.width))), smooth)
        row = max(20, width // 15)
        sheet = Image.new("RGB", (width, picture.height + row * len(best) + row // 2), _PAPER)
        sheet.paste(picture, (0, 0))
        pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=row * 0.5)
        for i, (label, probability) in enumerate(best):
            _draw_row(
                pen, font, (row // 2, picture.height + row // 4 + row * i, width - row // 2, row), label, probability
            )
        return sheet

    def save(self, folder: Path) -> list[Path]:
        """Write nothing: class names are in the table."""
        return []

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.path}: {self.error}"
        return f"{self.path}: " + ", ".join(f"{label} {p:.1%}" for label, p in self.top())

    def _answer(self) -> "Classification":
        if self.error is not None:
            raise DataError(f"{self.path} has no label: {self.error}")
        return self


def classify(logits: Tensor, names: Sequence[str], labels: Sequence[str], top: int = 5) -> list[Classification]:
    """Convert logits `(B, K)` to one result per image.

    Args:
        logits: one row per image.
        names: names of the images.
        labels: names of the K classes.
        top: number of classes to keep.
    """
    best = logits.detach().float().softmax(dim=1).cpu().topk(min(top, logits.shape[1]), dim=1)
    rows = zip(names, best.values.tolist(), best.indices.tolist(), strict=True)
    return [
        Classification(name, tuple(labels[int(i)] for i in indices), tuple(values), tuple(indices))
        for name, values, indices in rows
    ]


def check_finite(logits: Tensor, names: Sequence[str]) -> None:
    """Check that logits are finite.

    Raises:
        DataError: a logit is NaN or infinite; the message names the first such image.
    """
    bad = ~torch.isfinite(logits).all(dim=1)
    if bad.any():
        raise DataError(
            f"The model gives scores that are not numbers, first for {names[int(bad.nonzero()[0])]}"
            f" ({int(bad.sum())} of {len(bad)} pictures of this batch).\n"
            "Its weights are broken, or too large for this precision: try fp32, or an earlier checkpoint."
        )


def _draw_row(
    pen: ImageDraw.ImageDraw, font: Any, box: tuple[int, int, int, int], label: str, probability: float
) -> None:
    left, y, right, row = box
    middle, start, end = y + row // 2, left + (right - left) * 11 // 20, right - round(row * 1.9)
    while font.getlength(label) > start - left - row // 3 and len(label) > 2:
        label = label[:-2].rstrip() + "…"
    pen.text((left, middle), label, fill=_INK, font=font, anchor="lm")
    pen.rectangle((start, middle - row // 5, end, middle + row // 5), fill=_TRACK)
    if probability > 0:
        pen.rectangle((start, middle - row // 5, start + (end - start) * probability, middle + row // 5), fill=_BAR)
    pen.text((right, middle), f"{probability:.1%}", fill=_INK, font=font, anchor="rm")
