"""Gradual unfreezing: a frozen part of a model learns layer by layer, from the head down."""

from collections.abc import Sequence
from math import ceil

from torch import nn


class GradualUnfreezing:
    """Frozen layers by epoch.

    Of F frozen layers the first ceil(F (1 - e / E)) stay frozen in epoch e: all of them in epoch 0, none from epoch E
    on. "Universal Language Model Fine-tuning for Text Classification", section 3.3, with equal steps.

    Args:
        layers: the modules of each frozen layer, from the input to the head.
        epochs: epochs E until all layers learn.

    Example:
        >>> layers = [[nn.Linear(1, 1)] for _ in range(3)]
        >>> schedule = GradualUnfreezing(layers, epochs=2)
        >>> [len(schedule.freeze(epoch)) for epoch in range(3)]
        [3, 2, 0]
    """

    def __init__(self, layers: Sequence[Sequence[nn.Module]], epochs: int):
        self.layers, self.epochs = layers, epochs

    def freeze(self, epoch: int) -> list[nn.Module]:
        """Freeze the layers of an epoch and let the others learn; return the frozen modules."""
        count = ceil(len(self.layers) * max(1 - epoch / self.epochs, 0.0))
        for number, modules in enumerate(self.layers):
            for module in modules:
                module.requires_grad_(number >= count)
        return [module for modules in self.layers[:count] for module in modules]


class SteadyFreeze:
    """The same modules in every epoch."""

    def __init__(self, frozen: list[nn.Module]):
        self.frozen = frozen

    def freeze(self, epoch: int) -> list[nn.Module]:
        """Return the frozen modules."""
        return self.frozen
