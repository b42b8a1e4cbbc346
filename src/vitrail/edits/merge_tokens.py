"""Similar tokens merged from block to block, without training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from vitrail.edits.edit import Edit
from vitrail.edits.token_reduction import need_reducible, numbers_by_block, reduce_stages
from vitrail.parts.model import Model
from vitrail.parts.token_reduction import MergeSimilar


@dataclass(frozen=True)
class MergeTokens(Edit):
    """Merge r pairs of similar tokens in each block of plain Transformers.

    "Token Merging: Your ViT But Faster", Bolya et al., 2023; see `parts.token_reduction.MergeSimilar`.

    Args:
        removed: tokens that each block removes, by name of the stage; 0 for none.

    Example:
        >>> import torch
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=2).eval()
        >>> MergeTokens({"backbone.stages.0": [8, 8]}).apply(model)
        >>> model.features(torch.zeros(1, 3, 224, 224)).grid.tokens
        197
    """

    kind: ClassVar[str] = "merge_tokens"
    removed: Mapping[str, Sequence[int]]

    def __post_init__(self) -> None:
        checked = numbers_by_block(self.removed, lambda r: type(r) is int and r >= 0, "a whole number from 0 up")
        object.__setattr__(self, "removed", checked)

    @classmethod
    def constant(cls, model: Model, r: int) -> "MergeTokens":
        """Return the edit that removes r tokens in every block.

        Raises:
            VitrailError: the model has no stage of plain attention.
        """
        return cls({name: (r,) * blocks for name, blocks in need_reducible(model).items()})

    def apply(self, model: Model) -> None:
        """Replace the stages."""
        reduce_stages(model, self.removed, MergeSimilar, nothing=0, weighted=True)  # pyright: ignore[reportArgumentType]

    def summary(self) -> str:
        """Return how many tokens go."""
        return f"tokens merged: {sum(map(sum, self.removed.values()))} fewer at the end"


EDIT = MergeTokens
