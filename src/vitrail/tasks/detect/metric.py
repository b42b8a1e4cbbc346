"""Loss and average precision of a validation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vitrail.parts.detection.boxes import Boxes
from vitrail.parts.detection.detector import total
from vitrail.tasks.detect.average_precision import Histograms
from vitrail.tasks.detect.batches import BoxBatch


class Outputs(NamedTuple):
    """Losses by name, and the detections of a validation; none while training."""

    losses: dict[str, Tensor]
    found: list[Boxes]


class DetectionMetric:
    """Mean loss an image, AP50 and AP (mean over overlaps of 0.50 to 0.95), means over classes with objects."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self.device, self.histograms = device, Histograms(classes)
        self.loss, self.images = 0.0, 0.0

    def update(self, outputs: Outputs, batch: BoxBatch) -> None:
        """Add a batch."""
        self.loss += float(total(outputs.losses)) * len(batch.images)
        self.images += len(batch.images)
        parts = (batch.boxes, batch.labels, batch.ignore)
        true = zip(*(part.cpu().split(batch.counts.tolist()) for part in parts), strict=True)
        for found, (boxes, labels, ignore) in zip(outputs.found, true, strict=True):
            own = [x.cpu().numpy() for x in (found.boxes.double(), found.scores.double(), found.labels)]
            self.histograms.add(*own, *(x.numpy() for x in (boxes.double(), labels, ignore)))

    def sync(self, all_reduce_sum: Callable[[Tensor], Tensor]) -> None:
        """All-reduce the sums."""
        own = self.histograms
        parts = [own.right, own.wrong, own.objects, np.array([self.loss, self.images])]
        flat = torch.from_numpy(np.concatenate([part.ravel() for part in parts])).to(self.device)
        summed: Any = all_reduce_sum(flat).cpu().numpy()
        a, b = own.right.size, own.right.size + own.wrong.size
        own.right, own.wrong = summed[:a].reshape(own.right.shape), summed[a:b].reshape(own.wrong.shape)
        own.objects, (self.loss, self.images) = summed[b:-2], summed[-2:].tolist()

    def compute(self) -> dict[str, float]:
        """Return loss, `map50` and `map`."""
        precision = self.histograms.precision()
        real = self.histograms.objects > 0
        mean = precision[real].mean(0) if real.any() else np.zeros(precision.shape[1])
        return {"loss": self.loss / max(self.images, 1), "map50": float(mean[0]), "map": float(mean.mean())}
