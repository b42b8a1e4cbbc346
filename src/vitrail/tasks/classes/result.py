"""The likeliest classes of one input: base of the results of classifiers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from PIL import ImageDraw, ImageFont
from torch import Tensor

from vitrail.errors import DataError

PAPER, INK, BAR, TRACK = "#ffffff", "#1d232b", "#2f6db3", "#e6eaef"


@dataclass(frozen=True)
class ClassProbabilities:
    """The likeliest classes of one input, best first; or the reason why there are none.

    Args:
        path: file of the input, or its given name.
        labels: names of the classes.
        probabilities: their probabilities. They sum to one only over all classes.
        indices: their indices in the model's output.
        error: reason why the input could not be read; the other fields are then empty.
    """

    path: str
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    indices: tuple[int, ...] = ()
    error: str | None = None

    @property
    def label(self) -> str:
        """Name of the likeliest class.

        Raises:
            DataError: the input could not be read.
        """
        return self.known().labels[0]

    @property
    def probability(self) -> float:
        """Probability of the likeliest class."""
        return self.known().probabilities[0]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the `k` likeliest of the kept classes with their probabilities, best first."""
        known = self.known()
        return list(zip(known.labels[:k], known.probabilities[:k], strict=True))

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

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.path}: {self.error}"
        return f"{self.path}: " + ", ".join(f"{label} {p:.1%}" for label, p in self.top())

    def known(self) -> Self:
        """Return the result itself.

        Raises:
            DataError: the input could not be read.
        """
        if self.error is not None:
            raise DataError(f"{self.path} has no label: {self.error}")
        return self


class RankedClasses(NamedTuple):
    """The likeliest classes of one input: names, probabilities and indices, best first."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    indices: tuple[int, ...]


def rank_classes(logits: Tensor, labels: Sequence[str], top: int = 5) -> list[RankedClasses]:
    """Convert logits `(B, K)` to the `top` likeliest classes of each row.

    Example:
        >>> rank_classes(torch.tensor([[0.0, 9.0]]), ["no", "yes"], top=1)[0].labels
        ('yes',)
    """
    best = logits.detach().float().softmax(dim=1).cpu().topk(min(top, logits.shape[1]), dim=1)
    rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return [
        RankedClasses(tuple(labels[int(i)] for i in indices), tuple(values), tuple(indices)) for values, indices in rows
    ]


def check_finite(logits: Tensor, names: Sequence[str]) -> None:
    """Check that logits are finite.

    Raises:
        DataError: a logit is NaN or infinite; the message names the first such input.

    Example:
        >>> check_finite(torch.tensor([[0.0, 1.0]]), ["a.png"]) is None
        True
    """
    bad = ~torch.isfinite(logits).all(dim=1)
    if bad.any():
        raise DataError(
            f"The model gives scores that are not numbers, first for {names[int(bad.nonzero()[0])]}"
            f" ({int(bad.sum())} of {len(bad)} inputs of this batch).\n"
            "Its weights are broken, or too large for this precision: try fp32, or an earlier checkpoint."
        )


def draw_class(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    box: tuple[int, int, int, int],
    label: str,
    probability: float,
) -> None:
    """Draw a class in a row `(left, top, right, height)`: its name, a bar of its probability, the number."""
    left, y, right, row = box
    middle, start, end = y + row // 2, left + (right - left) * 11 // 20, right - round(row * 1.9)
    while font.getlength(label) > start - left - row // 3 and len(label) > 2:
        label = label[:-2].rstrip() + "…"
    pen.text((left, middle), label, fill=INK, font=font, anchor="lm")
    pen.rectangle((start, middle - row // 5, end, middle + row // 5), fill=TRACK)
    if probability > 0:
        pen.rectangle((start, middle - row // 5, start + (end - start) * probability, middle + row // 5), fill=BAR)
    pen.text((right, middle), f"{probability:.1%}", fill=INK, font=font, anchor="rm")
