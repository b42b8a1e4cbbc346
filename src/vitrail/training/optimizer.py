"""Optimizers by name, in torch's fastest implementation."""

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from vitrail.errors import unknown
from vitrail.training.muon import Muon, split_hidden


def make_optimizer(
    name: str, groups: list[dict[str, Any]], hidden: Collection[nn.Parameter] = (), beta2: float = 0.999
) -> torch.optim.Optimizer:
    """Build an optimizer over parameter groups; the learning rate is set before each step.

    Args:
        name: `adamw` (Loshchilov and Hutter 2019; beta1 is 0.9), `muon` (its matrices are `hidden`, the rest is
            AdamW's) or `sgd` (Nesterov momentum 0.9).
        groups: from `parameter_groups`.
        hidden: matrices of the blocks, from `hidden_matrices`.
        beta2: decay of the second moments in `adamw`.

    Example:
        >>> groups = [{"params": [torch.nn.Parameter(torch.zeros(2))], "scale": 1.0, "weight_decay": 0.0}]
        >>> make_optimizer("adamw", groups).param_groups[0]["fused"]
        True
    """
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, beta2), fused=True)
    if name == "muon":
        return Muon(split_hidden(groups, set(hidden)))
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True, fused=True)
    raise unknown("optimizer", name, ("adamw", "muon", "sgd"))
