"""Activation checkpointing: a block keeps its input alone and is computed again in the backward pass."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recompute_blocks(model: nn.Module) -> int:
    """Recompute every block of a model in the backward pass, in place, and return their number.

    "Training Deep Nets with Sublinear Memory Cost". Random draws are repeated, so gradients are those of stored
    activations. In evaluation mode and without gradients a block runs as before.

    Args:
        model: a model whose blocks are entries of lists named `blocks`.

    Example:
        >>> from vitrail.models import create_model
        >>> recompute_blocks(create_model("vit_tiny_patch16_224", depth=3))
        3
    """
    found = [module for name, module in model.named_modules() if name.split(".")[-2:-1] == ["blocks"]]
    for module in found:
        module.forward = partial(_recomputed, module, module.forward)
    return len(found)


def _recomputed(module: nn.Module, forward: Any, *args: Any, **named: Any) -> Any:
    if not module.training:
        return forward(*args, **named)
    return checkpoint(forward, *args, use_reentrant=False, **named)


def autocast_as(like: Tensor, enabled: bool, dtype: torch.dtype | None = None) -> AbstractContextManager[object]:
    """Return autocast for the device of a tensor; without effect on devices that have none, such as meta.

    Example:
        >>> with autocast_as(torch.zeros(1), enabled=False):
        ...     torch.is_autocast_enabled("cpu")
        False
    """
    kind = like.device.type
    if not torch.amp.is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=False)
