"""Keep the tokens that the class token attends to and fuse the others, without training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from vitrail.edits.edit import Edit
from vitrail.edits.token_reduction import check_class_token, need_reducible, numbers_by_block, reduce_stages
from vitrail.parts.model import Model
from vitrail.parts.token_reduction import KeepAttended


@dataclass(frozen=True)
class PruneTokens(Edit):
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
    shares: Mapping[str, Sequence[float]]

    def __post_init__(self) -> None:
        checked = numbers_by_block(
            self.shares, lambda share: type(share) in (int, float) and 0 < share <= 1, "a share in (0, 1]"
        )
        object.__setattr__(self, "shares", {name: tuple(map(float, given)) for name, given in checked.items()})

    @classmethod
    def quarters(cls, model: Model, share: float) -> "PruneTokens":
        """Return the edit that keeps a share in the blocks after each quarter of the depth: 3, 6 and 9 of 12.

        Raises:
            VitrailError: the model has no stage of plain attention.
        """
        check_class_token(model)
        shares: dict[str, list[float]] = {}
        for name, blocks in need_reducible(model).items():
            reducing = {blocks // 4, blocks // 2, blocks * 3 // 4} if blocks > 3 else {blocks - 1}
            shares[name] = [share if index in reducing else 1.0 for index in range(blocks)]
        return cls(shares)

    def apply(self, model: Model) -> None:
        """Replace the stages."""
        check_class_token(model)
        reduce_stages(model, self.shares, KeepAttended, nothing=1.0, weighted=False)

    def summary(self) -> str:
        """Return in how many blocks tokens go."""
        shares = [share for given in self.shares.values() for share in given if share < 1]
        return f"tokens kept by class attention: in {len(shares)} blocks, {min(shares, default=1.0):g} at least"


EDIT = PruneTokens
