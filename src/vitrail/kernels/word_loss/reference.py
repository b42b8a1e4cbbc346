"""Cross entropy of words whose scores are products with a word table: the specification."""

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import cross_entropy, linear


class WordLoss(NamedTuple):
    """Sums over tokens.

    Args:
        loss: cross entropy with label smoothing; has a gradient.
        nll: negative log-likelihood, in nats; has none.
    """

    loss: Tensor
    nll: Tensor


def word_loss(
    x: Tensor, table: Tensor, targets: Tensor, smoothing: float = 0.0, bias: Tensor | None = None
) -> WordLoss:
    """Return the cross entropy of each token's word under `softmax(E x + b)`, summed.

    loss = sum_i (1 - s) nll_i + s / V sum_v -log p_iv

    "Rethinking the Inception Architecture for Computer Vision", section 7 (label smoothing).

    Args:
        x: `(N, C)`, real tokens only.
        table: `(V, C)`.
        targets: `(N,)` ids of the right words.
        smoothing: s, in [0, 1).
        bias: `(V,)`, or None.
    """
    logits = linear(x, table, bias).float()
    loss = cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum")
    return WordLoss(loss, cross_entropy(logits.detach(), targets, reduction="sum"))
