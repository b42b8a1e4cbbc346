"""Classification: one answer a picture. Its loss and its measure."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vitrail.shapes import Logits


def classification_loss(logits: Logits, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy, computed in fp32 whatever the logits are.

    -sum_k t_k log p_k, with targets t moved by `smoothing` towards the uniform distribution (Szegedy et al. 2016,
    section 7).

    Args:
        logits: one score a class.
        targets: class numbers `(B,)`, or a distribution for each picture `(B, K)`.
        smoothing: share of the target that is spread over all classes.

    Example:
        >>> classification_loss(torch.zeros(1, 4), torch.tensor([2])).exp().item()
        4.0
    """
    return cross_entropy(logits.float(), targets, label_smoothing=smoothing)


class ClassificationScore:
    """Top-1, top-5 and loss over a data set, as sums that processes can add up.

    Args:
        classes: how many there are; of five or fewer the true one is always among five, and top-5 says nothing.
        device: where the logits will be.

    Attributes:
        sums: pictures, loss, top-1 hits, top-5 hits; float64, so counts stay exact.

    Example:
        >>> score = ClassificationScore(classes=2)
        >>> score.add(torch.tensor([[0.0, 2.0], [3.0, 1.0]]), torch.tensor([1, 1]))
        >>> score.metrics()["top1"], "top5" in score.metrics()
        (0.5, False)
    """

    def __init__(self, classes: int, device: torch.device | str = "cpu"):
        self.classes = classes
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)

    def add(self, logits: Logits, labels: Tensor) -> None:
        """Count a batch."""
        if len(labels) == 0:
            return
        losses = cross_entropy(logits.float(), labels, reduction="none").double().sum()
        hits = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
        count = torch.tensor(float(len(labels)), dtype=torch.float64, device=self.sums.device)
        self.sums += torch.stack([count, losses, hits[:, 0].sum().double(), hits.sum().double()])

    def metrics(self) -> dict[str, float]:
        """Return `loss`, `top1` and, of more than five classes, `top5`, each a mean over the pictures."""
        count, loss, top1, top5 = self.sums.tolist()
        metrics = {"loss": loss / count, "top1": top1 / count}
        return {**metrics, "top5": top5 / count} if self.classes > 5 else metrics
