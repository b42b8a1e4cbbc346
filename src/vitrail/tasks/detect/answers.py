"""Detections in a trial of the plain and the optimized detector: batches with sizes, and agreement of boxes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.fused.accuracy import Agreement
from vitrail.fused.answers import Answer, Logits
from vitrail.parts.detection.boxes import Boxes
from vitrail.tasks.detect.average_precision import overlaps

CLEAR = 0.5
"""Least score of a box of the plain model that must be found again."""
OVERLAP = 0.9
"""Least overlap (IoU) of a box that is the same."""


@dataclass(frozen=True)
class SizedImages:
    """Padded images and their own sizes, a batch that can be cut like a tensor.

    Args:
        images: `(B, C, Y, X)`.
        sizes: rows and columns of each image.

    Example:
        >>> batch = SizedImages(torch.zeros(3, 1, 4, 4), [(4, 4), (2, 4), (4, 3)])
        >>> len(batch), batch[1:].sizes, [len(part) for part in batch.split(2)]
        (3, [(2, 4), (4, 3)], [2, 1])
    """

    images: Tensor
    sizes: Sequence[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> "SizedImages":
        return SizedImages(self.images[part], self.sizes[part])

    @property
    def shape(self) -> torch.Size:
        """Shape of the padded images."""
        return self.images.shape

    def split(self, size: int) -> list["SizedImages"]:
        """Cut into parts of a size; the last may be smaller."""
        return [self[at : at + size] for at in range(0, len(self), size)]


class DetectionAnswers(Logits):
    """Lists of `Boxes`, one an image."""

    def of(self, model: nn.Module) -> Answer:
        """Return the function that finds the boxes of a batch."""
        return lambda batch: model(batch.images, batch.sizes)

    def in_bf16(self, model: nn.Module) -> Answer:
        """Return the plain model with products in bf16 and coordinates in fp32."""

        def answer(batch: SizedImages) -> list[Boxes]:
            with torch.autocast(batch.images.device.type, torch.bfloat16):
                return model(batch.images, batch.sizes)

        return answer

    def join(self, parts: Sequence[list[Boxes]]) -> list[Boxes]:
        """Return one list."""
        return [boxes for part in parts for boxes in part]

    def compare(self, got: list[Boxes], expected: list[Boxes], precision: str) -> Agreement:
        """Compare the boxes of some images by `compare_boxes`."""
        return compare_boxes(got, expected, precision)


def compare_boxes(got: Sequence[Boxes], expected: Sequence[Boxes], precision: str) -> Agreement:
    """Compare detections: each clear box must have one of its class, with an overlap of at least 0.9.

    The error is the mean difference of their scores; a box that is not found again counts with its whole score. A box
    is decided if its score is clear of 0.5 by a twentieth, so that rounding does not drop it.

    Args:
        got: detections of the candidate.
        expected: those of the plain model in fp32.
        precision: of the candidate.

    Example:
        >>> some = Boxes(torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([0.9]), torch.tensor([1]))
        >>> compare_boxes([some], [some], "fp32").holds
        True
        >>> compare_boxes([some._replace(labels=torch.tensor([0]))], [some], "bf16").holds
        False
    """
    differences, decided = [], []
    for mine, truth in zip(got, expected, strict=True):
        if not (torch.isfinite(mine.scores).all() and torch.isfinite(mine.boxes).all()):
            return Agreement(precision, None, len(got), 0.0, 0, 0.0, trained=False)
        clear = truth.scores >= CLEAR
        scores, own = _array(truth.scores[clear]), _array(mine.scores)
        boxes = overlaps(_array(truth.boxes[clear]), _array(mine.boxes), np.zeros(len(own), dtype=bool))
        same = (boxes >= OVERLAP) & (_array(truth.labels[clear])[:, None] == _array(mine.labels))
        nearest = np.where(same, np.abs(scores[:, None] - own), scores[:, None]).min(1, initial=np.inf)
        differences += np.minimum(nearest, scores).tolist()
        decided += same.any(1)[scores >= 1.1 * CLEAR].tolist()
    error, found = (
        float(np.mean(values)) if values else empty for values, empty in ((differences, 0.0), (decided, 1.0))
    )
    return Agreement(precision, error, len(got), found, len(decided), found, trained=False)


def _array(x: Tensor) -> np.ndarray:
    return x.double().cpu().numpy()


DETECTED = DetectionAnswers()
