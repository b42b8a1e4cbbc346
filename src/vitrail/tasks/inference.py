"""Inference modes of a model: evaluation mode and no gradients, both restored afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode; the mode of each module is restored afterwards.

    Example:
        >>> layer = nn.Dropout()
        >>> with evaluating(layer):
        ...     layer.training
        False
        >>> layer.training
        True
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model; an exported file, which has no weights of its own, runs on the CPU.

    Example:
        >>> device_of(nn.Linear(1, 1)), device_of(nn.ReLU())
        (device(type='cpu'), device(type='cpu'))
    """
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


@contextmanager
def inference_mode_for(model: nn.Module) -> Iterator[torch.device]:
    """Put a model in evaluation mode, without gradients, inside the block, and yield its device.

    The mode of each module is restored afterwards, so a training that inspects its own model continues unchanged.

    Example:
        >>> with inference_mode_for(nn.Linear(1, 1)) as device:
        ...     device, torch.is_inference_mode_enabled()
        (device(type='cpu'), True)
    """
    with evaluating(model), torch.inference_mode():
        yield device_of(model)
