"""Boxes that a detector finds, and boxes that it learns. No torchvision: its import takes time."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Boxes(NamedTuple):
    """Detections of one image, best first.

    Args:
        boxes: `(n, 4)`, left, top, right, bottom in pixels of the input.
        scores: `(n,)`, probabilities.
        labels: `(n,)`, class numbers from 0.
        masks: `(n, 28, 28)` probabilities inside the boxes, or None.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None


class Targets(NamedTuple):
    """Objects to learn, image by image.

    Args:
        boxes: `(n, 4)` each, left, top, right, bottom in pixels of the input.
        labels: `(n,)` each, class numbers from 0.
        masks: `(n, Y, X)` each, 0 or 1; None for boxes alone.
    """

    boxes: Sequence[Tensor]
    labels: Sequence[Tensor]
    masks: Sequence[Tensor] | None = None

    def dicts(self) -> list[dict[str, Tensor]]:
        """Return torchvision's targets, whose class 0 is the background."""
        pairs = zip(self.boxes, self.labels, strict=True)
        found = [{"boxes": boxes, "labels": labels + 1} for boxes, labels in pairs]
        for each, mask in zip(found, self.masks or (), strict=False):
            each["masks"] = mask
        return found
