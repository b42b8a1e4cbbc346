"""Cross-entropy of classification."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from vitrail.shapes import Logits


def classification_loss(logits: Logits, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy, computed in fp32 for logits of any dtype.

    -sum_k t_k log p_k, with targets t moved by `smoothing` towards the uniform distribution (Szegedy et al. 2016,
    section 7).

    Args:
        logits: one score per class.
        targets: class indices `(B,)`, or a distribution for each image `(B, K)`.
        smoothing: label smoothing, the share of the target spread over all classes.

    Example:
        >>> import torch
        >>> classification_loss(torch.zeros(1, 4), torch.tensor([2])).exp().item()
        4.0
    """
    return cross_entropy(logits.float(), targets, label_smoothing=smoothing)
