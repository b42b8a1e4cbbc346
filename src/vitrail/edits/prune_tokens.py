"""Keep the tokens that the class token attends to and fuse the others, without training."""

from dataclasses import dataclass
from typing import ClassVar

from vitrail.edits.token_reduction import SharesByBlock, check_class_token, reduce_stages
from vitrail.parts.model import Model
from vitrail.parts.token_reduction import KeepAttended


@dataclass(frozen=True)
class PruneTokens(SharesByBlock):
    """Keep a share of the tokens in some blocks of plain Transformers with a class token.

    "Not All Patches are What You Need: Expediting Vision Transformers via Token Reorganizations", Liang et al., 2022;
    see `parts.token_reduction.KeepAttended`.

    Args:
        shares: share of the tokens that each block keeps, by name of the stage; 1 for all.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224")
        >>> PruneTokens.quarters(model, 0.7).shares["backbone.stages.0"]
        (1.0, 1.0, 1.0, 0.7, 1.0, 1.0, 0.7, 1.0, 1.0, 0.7, 1.0, 1.0)
    """

    kind: ClassVar[str] = "prune_tokens"

    def apply(self, model: Model) -> None:
        """Replace the stages."""
        check_class_token(model)
        reduce_stages(model, self.shares, KeepAttended, nothing=1.0, weighted=False)

    def summary(self) -> str:
        """Return in how many blocks tokens go."""
        return f"tokens kept by class attention: {self.counted()}"


EDIT = PruneTokens
