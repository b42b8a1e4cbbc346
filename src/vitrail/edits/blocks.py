"""Blocks dropped from stages: a shallower model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from vitrail.edits.edit import Edit, index_lists, submodule
from vitrail.errors import VitrailError
from vitrail.parts.blocks import Block, ConvNeXtBlock
from vitrail.parts.model import Model
from vitrail.parts.sequence_blocks import DecoderBlock, PostNormBlock

RESIDUAL = (Block, ConvNeXtBlock, PostNormBlock, DecoderBlock)
"""Blocks around a residual, whose output can take the place of their input."""


@dataclass(frozen=True)
class DropBlocks(Edit):
    """Keep some blocks of each stage, in their order.

    "Reducing Transformer Depth on Demand with Structured Dropout", section 3.2: a model that was trained with dropped
    blocks can be used at any smaller depth without fine-tuning.

    Args:
        keep: numbers of the blocks that stay, by name of the stage.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=4)
        >>> DropBlocks({"backbone.stages.0": [0, 3]}).apply(model)
        >>> len(model.backbone.stages[0].blocks)
        2
    """

    kind: ClassVar[str] = "drop_blocks"
    keep: Mapping[str, Sequence[int]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", index_lists(self.keep))

    def apply(self, model: Model) -> None:
        """Remove the other blocks."""
        stages = {name: self._stage(model, name) for name in self.keep}
        for name, stage in stages.items():
            stage.blocks = nn.ModuleList([stage.blocks[index] for index in self.keep[name]])

    def _stage(self, model: Model, name: str) -> Any:
        stage: Any = submodule(model, name)
        reason = undroppable_reason(stage)
        if reason is not None:
            raise VitrailError(f"The blocks of {name} cannot be dropped: {reason}.")
        if self.keep[name][-1] >= len(stage.blocks):
            raise VitrailError(
                f"{name} has {len(stage.blocks)} blocks, and number {self.keep[name][-1]} is to be kept."
            )
        return stage

    def summary(self) -> str:
        """Return how many blocks are left."""
        return "blocks dropped: " + ", ".join(f"{len(kept)} left in {name}" for name, kept in self.keep.items())


EDIT = DropBlocks


def undroppable_reason(stage: nn.Module) -> str | None:
    """Return why blocks of a module cannot be dropped, or None."""
    blocks = getattr(stage, "blocks", None)
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        return f"{type(stage).__name__} has no list of blocks"
    other = next((block for block in blocks if not isinstance(block, RESIDUAL)), None)
    return None if other is None else f"{type(other).__name__} is no residual block of one width"


def droppable_stages(model: nn.Module) -> dict[str, int]:
    """Return the number of blocks of each stage that can lose some, by its name.

    Example:
        >>> from vitrail.models import create_model
        >>> droppable_stages(create_model("swin_tiny_patch4_window7_224"))["backbone.stages.2"]
        6
    """
    named = [(name, module) for name, module in model.named_modules() if hasattr(module, "blocks")]
    return {name: len(module.blocks) for name, module in named if undroppable_reason(module) is None}  # pyright: ignore[reportArgumentType]
