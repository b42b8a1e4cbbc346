"""Suppression of overlapping boxes with a result of fixed size, as one operation of an exported program."""

import torch
from torch import Tensor
from torchvision.ops import nms


def suppress(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """Return which boxes of each group are kept: no kept box with a higher score overlaps them by more than `overlap`.

    Args:
        boxes: `(G, N, 4)`, left, top, right, bottom.
        scores: `(G, N)`; a negative one marks an entry that is no box.
        overlap: largest intersection over union of two kept boxes.

    Returns:
        `(G, N)` of bool.

    Example:
        >>> boxes = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 4, 3], [9, 9, 10, 10], [0, 0, 0, 0]]])
        >>> suppress(boxes, torch.tensor([[0.6, 0.9, 0.1, -1.0]]), 0.5).tolist()
        [[False, True, True, False]]
    """
    return _group_by_group(boxes, scores, overlap)


@torch.library.custom_op("vitrail::suppress", mutates_args=())
def _group_by_group(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for group, (own, its_scores) in enumerate(zip(boxes, scores, strict=True)):
        real = (its_scores >= 0).nonzero()[:, 0]
        kept[group, real[nms(own[real], its_scores[real], overlap)]] = True
    return kept


@_group_by_group.register_fake
def _shape(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)
