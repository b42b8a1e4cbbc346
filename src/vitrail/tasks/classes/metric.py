"""Top-1, top-5 and loss of a validation."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vitrail.data.loading import Batch
from vitrail.shapes import Logits


class ClassificationMetric:
    """Top-1, top-5 and loss of a validation, as sums that ranks can all-reduce.

    Args:
        classes: number of classes; with five or fewer top-5 is always 1, so it is left out.
        device: device of the logits.

    Attributes:
        sums: samples, loss, top-1 hits, top-5 hits; float64, so counts stay exact.
        counts: samples of each class, `(K,)`.

    Example:
        >>> logits, labels = torch.tensor([[0.0, 2.0], [3.0, 1.0]]), torch.tensor([1, 1])
        >>> from vitrail.data.loading import Batch
        >>> metric = ClassificationMetric(classes=2)
        >>> metric.update((logits, logits), Batch(torch.zeros(2, 3, 8, 8), labels, torch.arange(2)))
        >>> metric.compute()["top1"], "top5" in metric.compute()
        (0.5, False)
    """

    def __init__(self, classes: int, device: torch.device | str = "cpu"):
        self.classes = classes
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)
        self.counts = torch.zeros(classes, dtype=torch.float64, device=device)

    def update(self, outputs: Sequence[Logits], batch: Batch) -> None:
        """Add a batch; the first output is the logits, `batch.labels` are the classes."""
        logits, labels = outputs[0], batch.labels
        losses = cross_entropy(logits.float(), labels, reduction="none").double().sum()
        hits = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
        count = torch.tensor(float(len(labels)), dtype=torch.float64, device=self.sums.device)
        self.sums += torch.stack([count, losses, hits[:, 0].sum().double(), hits.sum().double()])
        self.counts += torch.bincount(labels, minlength=self.classes)

    def sync(self, all_reduce_sum: Callable[[Tensor], Tensor]) -> None:
        """All-reduce the sums."""
        self.sums, self.counts = all_reduce_sum(self.sums), all_reduce_sum(self.counts)

    def baseline(self) -> dict[str, float]:
        """Return the top-1 of naming the most frequent class, on the samples of the metric."""
        return {"top1": float(self.counts.max() / self.counts.sum().clamp_min(1))}

    def compute(self) -> dict[str, float]:
        """Return `loss`, `top1` and, with more than five classes, `top5`, each a mean over the samples."""
        count, loss, top1, top5 = self.sums.tolist()
        metrics = {"loss": loss / count, "top1": top1 / count}
        return {**metrics, "top5": top5 / count} if self.classes > 5 else metrics
