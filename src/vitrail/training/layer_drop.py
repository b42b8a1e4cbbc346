"""LayerDrop: whole blocks are skipped in training, so that the model can be used at any smaller depth."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.edits.blocks import droppable_stages
from vitrail.errors import VitrailError


class DroppedLayer(nn.Module):
    """Mixed into the class of a block: in training its output is its input with probability `layer_drop`.

    x -> x with probability p, else block(x); all samples of a forward pass alike, and nothing is rescaled

    "Reducing Transformer Depth on Demand with Structured Dropout", section 3.1: p = 0.2, or 0.5 for models that lose
    many blocks. A skipped block costs nothing in this update.
    """

    layer_drop = 0.0

    def forward(self, x: Tensor, *given: object, **named: Any) -> Tensor:
        """Skip the block, or compute it."""
        if self.training and float(torch.rand(())) < self.layer_drop:
            return x
        return super().forward(x, *given, **named)  # pyright: ignore[reportAttributeAccessIssue]


def drop_layers(model: nn.Module, rate: float) -> nn.Module:
    """Let blocks be skipped in training, in place; weights, their names and evaluation stay as they are.

    Args:
        model: the model.
        rate: probability p that a block is skipped.

    Raises:
        VitrailError: no block of the model can be skipped.

    Example:
        >>> from vitrail.models import create_model
        >>> model = drop_layers(create_model("vit_tiny_patch16_224", depth=2, image_size=32), 0.5)
        >>> model.eval()(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 1000])
    """
    stages = droppable_stages(model)
    if not stages:
        raise VitrailError("layer_drop skips residual blocks of stages, and this model has none.")
    for name in stages:
        blocks: Any = model.get_submodule(name).blocks
        for block in blocks:
            if not isinstance(block, DroppedLayer):
                block.__class__ = _dropping(type(block))
            block.layer_drop = rate
    return model


@cache
def _dropping(kind: type[nn.Module]) -> type[nn.Module]:
    made: Any = type(f"Dropped{kind.__name__}", (DroppedLayer, kind), {})
    return made
