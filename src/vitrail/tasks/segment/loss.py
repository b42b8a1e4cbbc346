"""Losses of segmentation: cross-entropy with class weights, and Dice."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from vitrail.data.label_map import IGNORE


class SegmentLoss(NamedTuple):
    """Weighted cross-entropy and Dice of the labelled pixels, as means that add up over parts of a batch.

    L = 1/n sum_i w[y_i] (-log p_i[y_i]) + dice * 1/n sum_images n_b (1 - mean_c 2 |P_c Y_c| / (|P_c| + |Y_c|))

    n counts labelled pixels. The mean of the second term is over the classes in an image's mask; it is taken image by
    image and weighted by the labelled pixels n_b, so that micro-batches and ranks add up to the loss of the batch.
    "V-Net", Milletari et al. 2016, section 3, for Dice, here with P and not P squared in the denominator.

    Args:
        weights: weight of each class `(K,)`, or None.
        dice: weight of the Dice loss.
    """

    weights: Tensor | None = None
    dice: float = 0.0

    def of(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return the sum over labelled pixels, in fp32.

        Args:
            logits: `(B, K, Y, X)`.
            classes: `(B, Y, X)`, `IGNORE` for pixels that never count.
        """
        logits = logits.float()
        weights = None if self.weights is None else self.weights.to(logits.device)
        each = cross_entropy(logits, classes, weight=weights, ignore_index=IGNORE, reduction="sum")
        if not self.dice:
            return each
        counts = (classes != IGNORE).sum((1, 2))
        return each + self.dice * (counts * dice_losses(logits, classes)).sum()


def dice_losses(logits: Tensor, classes: Tensor) -> Tensor:
    """Return `1 - mean_c 2 |P_c Y_c| / (|P_c| + |Y_c|)` of each image `(B,)`, over the classes in its mask.

    Example:
        >>> logits = torch.tensor([[[[9.0, -9.0]], [[-9.0, 9.0]]]])
        >>> dice_losses(logits, torch.tensor([[[0, 1]]])).item() < 1e-5
        True
    """
    counted = (classes != IGNORE)[:, None]  # (B, 1, Y, X)
    truth = one_hot(classes.clamp_min(0), logits.shape[1]).permute(0, 3, 1, 2) * counted
    chance = logits.float().softmax(1) * counted
    both, either = (chance * truth).sum((2, 3)), chance.sum((2, 3)) + truth.sum((2, 3))
    present = truth.sum((2, 3)) > 0
    scores = (2 * both / either.clamp_min(1e-9)) * present
    return 1 - scores.sum(1) / present.sum(1).clamp_min(1)


def balanced_weights(counts: Tensor) -> Tensor:
    """Return `1 / ln(1.02 + share)` of each class, divided by their mean over the pixels.

    "ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation", section 4. The mean over pixels is
    one, so that the loss keeps its size.

    Args:
        counts: pixels of each class in training.

    Example:
        >>> balanced_weights(torch.tensor([50.0, 50.0])).tolist()
        [1.0, 1.0]
    """
    share = counts.double() / counts.sum()
    weights = 1 / torch.log(1.02 + share)
    return (weights / (weights * share).sum()).float()
