"""Example images of a split: the worst errors, and one correct prediction per class."""

from heapq import nlargest
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from vitrail.tasks.classes.scores import Scores
from vitrail.tasks.classify.evaluation import EvaluatedImage
from vitrail.tasks.data_url import encode

LARGEST = 224
"""Longest side of a kept image, in pixels."""


class Kept(NamedTuple):
    """An image of the split with its prediction."""

    id: str
    label: int
    predicted: int
    confidence: float
    loss: float
    pixels: Tensor


class ExampleCollector:
    """Collects a bounded number of images during an evaluation.

    Args:
        errors: maximum number of wrong predictions; those with the highest loss are kept.
        examples: maximum number of correct predictions; the first of each class is kept.
    """

    def __init__(self, errors: int = 24, examples: int = 12):
        self.most_errors, self.most_examples = errors, examples
        self._errors: list[Kept] = []
        self._examples: dict[int, Kept] = {}

    def add(self, scores: Scores, ids: list[str], pixels: Tensor) -> None:
        """Add a batch; `pixels` are `(B, C, Y, X)` of uint8."""
        for i, right in enumerate(scores.right.tolist()):
            label, loss = int(scores.label[i]), float(scores.loss[i])
            if not (self._wants_example(label) if right else self._wants_error(loss)):
                continue
            own = pixels[i].clone()  # a view would keep the whole batch in memory
            kept = Kept(ids[i], label, int(scores.predicted[i]), float(scores.confidence[i]), loss, own)
            if right:
                self._examples[label] = kept
            else:
                self._errors = nlargest(self.most_errors, [*self._errors, kept], key=lambda each: each.loss)

    def _wants_example(self, label: int) -> bool:
        return label not in self._examples and len(self._examples) < self.most_examples

    def _wants_error(self, loss: float) -> bool:
        room = len(self._errors) < self.most_errors
        return room or (self.most_errors > 0 and loss > self._errors[-1].loss)

    def collect(self, labels: tuple[str, ...]) -> tuple[tuple[EvaluatedImage, ...], tuple[EvaluatedImage, ...]]:
        """Return errors (worst first) and examples (by class), ready for JSON."""
        examples = [self._examples[label] for label in sorted(self._examples)]
        errors, right = (
            tuple(
                EvaluatedImage(
                    k.id, labels[k.label], labels[k.predicted], k.confidence, k.loss, encode(_thumbnail(k.pixels))
                )
                for k in kept
            )
            for kept in (self._errors, examples)
        )
        return errors, right


def _thumbnail(pixels: Tensor) -> Image.Image:
    """Convert `(C, Y, X)` of uint8 to an image of at most `LARGEST` pixels a side."""
    planes = pixels.permute(1, 2, 0).numpy()  # (C, Y, X) -> (Y, X, C)
    shown = planes[:, :, :3] if planes.shape[2] >= 3 else planes[:, :, 0]  # of more bands the first three
    image = Image.fromarray(np.ascontiguousarray(shown))
    image.thumbnail((LARGEST, LARGEST))
    return image
