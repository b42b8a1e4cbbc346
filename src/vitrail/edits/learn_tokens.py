"""Tokens dropped by predictors that training teaches: DynamicViT."""

from dataclasses import dataclass
from typing import ClassVar

from vitrail.edits.low_rank import put
from vitrail.edits.token_reduction import SharesByBlock, check_class_token, given_stages
from vitrail.parts.dynamic_tokens import DynamicStage
from vitrail.parts.model import Model


@dataclass(frozen=True)
class LearnTokens(SharesByBlock):
    """Drop tokens before some blocks of plain Transformers with a class token, as new predictors choose.

    "DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification", Rao et al., 2021; see
    `parts.dynamic_tokens.DynamicStage`. The predictors know nothing at first: train the model afterwards, with
    `--teacher` the whole model, as the authors do.

    Args:
        shares: share of the tokens left that stays before each block, by name of the stage; 1 for all.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=4)
        >>> LearnTokens.quarters(model, 0.7).apply(model)
        >>> sorted(model.backbone.stages[0].predictors)
        ['1', '2', '3']
    """

    kind: ClassVar[str] = "learn_tokens"

    def apply(self, model: Model) -> None:
        """Replace the stages."""
        check_class_token(model)
        for name, stage in given_stages(model, self.shares).items():
            dim = stage.blocks[0].token_mixer.qkv.in_features
            put(model, name, DynamicStage(stage, self.shares[name], dim))

    def summary(self) -> str:
        """Return before how many blocks tokens go."""
        return f"tokens kept by predictors: {self.counted()}"


EDIT = LearnTokens
