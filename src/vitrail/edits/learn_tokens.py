"""Tokens dropped by predictors that training teaches: DynamicViT."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from vitrail.edits.edit import Edit, submodule
from vitrail.edits.low_rank import put
from vitrail.edits.prune_tokens import PruneTokens
from vitrail.edits.token_reduction import check_class_token, irreducible_reason, numbers_by_block
from vitrail.errors import VitrailError
from vitrail.parts.dynamic_tokens import DynamicStage
from vitrail.parts.model import Model


@dataclass(frozen=True)
class LearnTokens(Edit):
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
    shares: Mapping[str, Sequence[float]]

    def __post_init__(self) -> None:
        checked = numbers_by_block(
            self.shares, lambda share: type(share) in (int, float) and 0 < share <= 1, "a share in (0, 1]"
        )
        object.__setattr__(self, "shares", {name: tuple(map(float, given)) for name, given in checked.items()})

    @classmethod
    def quarters(cls, model: Model, share: float) -> "LearnTokens":
        """Return the edit that keeps a share before the blocks after each quarter of the depth: 3, 6 and 9 of 12.

        Raises:
            VitrailError: the model has no stage of plain attention, or no class token.
        """
        return cls(PruneTokens.quarters(model, share).shares)

    def apply(self, model: Model) -> None:
        """Replace the stages."""
        check_class_token(model)
        stages: dict[str, Any] = {name: submodule(model, name) for name in self.shares}
        for name, stage in stages.items():
            if (reason := irreducible_reason(stage)) is not None:
                raise VitrailError(f"Tokens of {name} cannot be dropped: {reason}.")
            if len(self.shares[name]) != len(stage.blocks):
                raise VitrailError(
                    f"{name} has {len(stage.blocks)} blocks, and {len(self.shares[name])} numbers are given."
                )
        for name, stage in stages.items():
            dim = stage.blocks[0].token_mixer.qkv.in_features
            put(model, name, DynamicStage(stage, self.shares[name], dim))

    def summary(self) -> str:
        """Return before how many blocks tokens go."""
        shares = [share for given in self.shares.values() for share in given if share < 1]
        return f"tokens kept by predictors: before {len(shares)} blocks, {min(shares, default=1.0):g} at least"


EDIT = LearnTokens
