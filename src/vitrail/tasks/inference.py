"""Modes of a model in use: evaluation mode and no gradients, both restored afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode; afterwards every module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def inference_mode_for(model: nn.Module) -> Iterator[torch.device]:
    """Put a model in evaluation mode, without gradients, inside the block, and give the device it lives on.

    Afterwards each module is in the mode it was in, so a training that looks at its own model goes on unchanged.
    """
    first = next(model.parameters(), None)
    with evaluating(model), torch.inference_mode():
        yield torch.device("cpu") if first is None else first.device
