"""Iterative magnitude pruning: masks on weights that a training respects, and tickets that begin anywhere.

"The Lottery Ticket Hypothesis", section 2; "Linear Mode Connectivity and the Lottery Ticket Hypothesis" for rewinding
to early steps.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vitrail.study.images import StudyImages
from vitrail.study.learner import LearnSettings, learn

Masks = dict[str, Tensor]
"""By name of a weight, 1 where it is kept."""

State = Mapping[str, Tensor]


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the matrices between embedding and head: biases, norms, tables and both ends stay whole."""
    return {
        name: p
        for name, p in model.named_parameters()
        if p.ndim == 2 and ".blocks." in name and name.endswith("weight")
    }


def full_masks(model: nn.Module) -> Masks:
    """Return masks that keep everything."""
    return {name: torch.ones_like(p) for name, p in prunable(model).items()}


def pruned(masks: Masks, model: nn.Module, share: float) -> Masks:
    """Remove the smallest `share` of the weights that are left, over all matrices together."""
    weights = prunable(model)
    sizes = torch.cat([weights[name].detach().abs()[mask > 0] for name, mask in masks.items()])
    cut = sizes.sort().values[int(share * len(sizes))]
    return {name: mask * (weights[name].detach().abs() >= cut) for name, mask in masks.items()}


def shuffled(masks: Masks, seed: int) -> Masks:
    """Return random masks that keep as many weights in each matrix."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: mask.flatten()[torch.randperm(mask.numel(), generator=draw)].view_as(mask) for name, mask in masks.items()
    }


def left(masks: Masks) -> float:
    """Return the share of weights that are kept."""
    return sum(float(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())


def train_ticket(
    model: nn.Module, start: State, masks: Masks, data: StudyImages, settings: LearnSettings, seed: int
) -> float:
    """Train from a state with the pruned weights held at zero, and return the accuracy.

    Args:
        model: changed in-place; its weights are trained ones afterwards.
        start: weights to begin with.
        masks: which weights exist.
        data: images.
        settings: of the training.
        seed: of the batches.
    """
    model.load_state_dict(start)
    weights = prunable(model)
    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].mul_(mask)
    # A masked gradient is zero, so AdamW moves a zero weight nowhere: its decay is multiplicative.
    handles = [weights[name].register_hook(lambda grad, mask=mask: grad * mask) for name, mask in masks.items()]
    try:
        return learn(model, data, settings, seed).accuracy
    finally:
        for handle in handles:
            handle.remove()
