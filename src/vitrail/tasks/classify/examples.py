"""Which pictures of a split are worth looking at: the worst errors, and one right answer a class."""

from heapq import nlargest
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from vitrail.tasks.classify.evaluation import EvaluatedImage
from vitrail.tasks.classify.scores import Scores
from vitrail.tasks.data_url import encode

LARGEST = 224
"""Longest side of a kept picture, in pixels."""


class Kept(NamedTuple):
    """A picture of the split with what was said of it."""

    id: str
    label: int
    predicted: int
    confidence: float
    loss: float
    pixels: Tensor


class ExampleCollector:
    """Keeps a bounded number of pictures while a split of any size goes by.

    Args:
        errors: most wrong answers to keep; those with the highest loss stay.
        examples: most right answers to keep; the first of each class.
    """

    def __init__(self, errors: int = 24, examples: int = 12):
        self.most_errors, self.most_examples = errors, examples
        self._errors: list[Kept] = []
        self._examples: dict[int, Kept] = {}

    def add(self, scores: Scores, ids: list[str], pixels: Tensor) -> None:
        """Look at a batch; `pixels` are `(B, C, Y, X)` of uint8."""
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
        """Return errors (worst first) and examples (by class), as values that fit in a JSON file."""
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
    """Turn `(C, Y, X)` of uint8 into a picture of at most `LARGEST` pixels a side."""
    planes = pixels.permute(1, 2, 0).numpy()  # (C, Y, X) -> (Y, X, C)
    picture = Image.fromarray(planes[:, :, 0] if planes.shape[2] == 1 else planes)
    picture.thumbnail((LARGEST, LARGEST))
    return picture
