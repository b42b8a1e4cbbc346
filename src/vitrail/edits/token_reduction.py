"""Stages of plain Transformers that can reduce their tokens, and the check of a number for each of their blocks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from torch import nn

from vitrail.edits.edit import Edit, submodule
from vitrail.edits.low_rank import put
from vitrail.errors import VitrailError
from vitrail.parts.attend import Attend
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP, GatedMLP, NormedGatedMLP
from vitrail.parts.embeddings import PrefixTokens
from vitrail.parts.model import Model
from vitrail.parts.positions import NoPosition
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_reduction import FewerTokensStage, ReducingStage, Reduction

Number = TypeVar("Number", bound=float)

CHANNEL_MIXERS = (MLP, GatedMLP, NormedGatedMLP)
"""Mixers of single tokens, which do not read the grid."""


@dataclass(frozen=True)
class SharesByBlock(Edit):
    """Base of edits that keep a share of the tokens in some blocks of plain Transformers with a class token.

    Args:
        shares: share of the tokens that stays in each block, by name of the stage; 1 for all.
    """

    shares: Mapping[str, Sequence[float]]

    def __post_init__(self) -> None:
        checked = numbers_by_block(
            self.shares, lambda share: type(share) in (int, float) and 0 < share <= 1, "a share in (0, 1]"
        )
        object.__setattr__(self, "shares", {name: tuple(map(float, given)) for name, given in checked.items()})

    @classmethod
    def quarters(cls, model: Model, share: float) -> Self:
        """Return the edit that keeps a share after each quarter of the depth: in the blocks 3, 6 and 9 of 12.

        Raises:
            VitrailError: the model has no stage of plain attention, or no class token.
        """
        check_class_token(model)
        shares: dict[str, list[float]] = {}
        for name, blocks in need_reducible(model).items():
            reducing = {blocks // 4, blocks // 2, blocks * 3 // 4} if blocks > 3 else {blocks - 1}
            shares[name] = [share if index in reducing else 1.0 for index in range(blocks)]
        return cls(shares)

    def counted(self) -> str:
        """Return in how many blocks tokens go."""
        shares = [share for given in self.shares.values() for share in given if share < 1]
        return f"in {len(shares)} blocks, {min(shares, default=1.0):g} at least"


def irreducible_reason(stage: nn.Module) -> str | None:
    """Return why a stage cannot reduce its tokens, or None."""
    if isinstance(stage, FewerTokensStage):
        return "it reduces its tokens already"
    if type(stage) is not Stage or not len(stage.blocks):
        return f"{type(stage).__name__} is no stage of blocks"
    return next((reason for block in stage.blocks if (reason := _block_reason(block))), None)


def _block_reason(block: Any) -> str | None:
    if type(block) is not Block:
        return f"{type(block).__name__} is no block of self-attention and MLP"
    if type(block.token_mixer) is not SelfAttention:
        return f"{type(block.token_mixer).__name__} is not attention over all tokens, or needs the grid"
    if type(block.token_mixer.position) is not NoPosition:
        return f"the {type(block.token_mixer.position).__name__} of its attention needs the grid"
    if type(block.token_mixer.attend) is not Attend:
        return f"its attention is computed by {type(block.token_mixer.attend).__name__}"
    if type(block.channel_mixer) not in CHANNEL_MIXERS:
        return f"{type(block.channel_mixer).__name__} may need the grid"
    return None


def reducible_stages(model: nn.Module) -> dict[str, int]:
    """Return the number of blocks of each stage that can reduce its tokens, by its name.

    Example:
        >>> from vitrail.models import create_model
        >>> reducible_stages(create_model("vit_tiny_patch16_224", depth=2))
        {'backbone.stages.0': 2}
        >>> reducible_stages(create_model("swin_tiny_patch4_window7_224"))
        {}
    """
    stages: list[tuple[str, Any]] = [(name, part) for name, part in model.named_modules() if hasattr(part, "blocks")]
    return {name: len(stage.blocks) for name, stage in stages if irreducible_reason(stage) is None}


def need_reducible(model: Model) -> dict[str, int]:
    """Return the stages of `reducible_stages`, at least one.

    Raises:
        VitrailError: no stage can reduce its tokens; the message says why.

    Example:
        >>> from vitrail.models import create_model
        >>> list(need_reducible(create_model("vit_tiny_patch16_224", depth=2)))
        ['backbone.stages.0']
    """
    found = reducible_stages(model)
    if not found:
        reasons = [irreducible_reason(part) for _, part in model.named_modules() if hasattr(part, "blocks")]
        reason = reasons[0] if reasons else "it has no stages of blocks"
        raise VitrailError(
            f"Tokens of {model.variant or type(model).__name__} cannot be reduced: {reason}.\n"
            "Plain Transformers can: ViT, DeiT, DINOv2, SigLIP."
        )
    return found


def numbers_by_block(given: object, fits: Callable[[Any], bool], needed: str) -> dict[str, tuple[float, ...]]:
    """Check and freeze a mapping from stages to a number for each block.

    Raises:
        VitrailError: it is something else.
    """
    if not isinstance(given, Mapping) or not given:
        raise VitrailError(f"Got {given!r}; a mapping from names of stages to {needed} for each block is needed.")
    for name, numbers in given.items():
        if not isinstance(numbers, Sequence) or isinstance(numbers, str) or not all(map(fits, numbers)):
            raise VitrailError(f"{name}: got {numbers!r}; {needed} for each block is needed.")
    return {str(name): tuple(numbers) for name, numbers in given.items()}


def reduce_stages(
    model: Model,
    numbers: Mapping[str, Sequence[Number]],
    make: Callable[[Number], Reduction],
    nothing: Number,
    weighted: bool,
) -> None:
    """Replace stages by stages that reduce their tokens.

    Args:
        model: model to change.
        numbers: a number for each block of a stage, by name of the stage.
        make: from a number to the reduction of a block.
        nothing: the number that reduces nothing.
        weighted: whether tokens have sizes that later blocks read.

    Raises:
        VitrailError: a stage cannot reduce its tokens, or has another number of blocks.
    """
    for name, stage in given_stages(model, numbers).items():
        given = numbers[name]
        reducing = [number != nothing for number in given]
        # After tokens were merged, their sizes take part in every attention; a pruned token is a token like any other.
        steps: list[Reduction | None] = [
            make(number) if reducing[i] or (weighted and any(reducing[:i])) else None for i, number in enumerate(given)
        ]
        put(model, name, ReducingStage(stage, steps))  # pyright: ignore[reportArgumentType]


def given_stages(model: Model, numbers: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return the stages of an edit by name.

    Raises:
        VitrailError: a stage cannot reduce its tokens, or has another number of blocks.
    """
    stages: dict[str, Any] = {name: submodule(model, name) for name in numbers}
    for name, stage in stages.items():
        if (reason := irreducible_reason(stage)) is not None:
            raise VitrailError(f"Tokens of {name} cannot be reduced: {reason}.")
        if len(numbers[name]) != len(stage.blocks):
            raise VitrailError(f"{name} has {len(stage.blocks)} blocks, and {len(numbers[name])} numbers are given.")
    return stages


def check_class_token(model: Model) -> None:
    """Check that a model has a class token.

    Raises:
        VitrailError: it has none.

    Example:
        >>> from vitrail.models import create_model
        >>> check_class_token(create_model("vit_tiny_patch16_224", depth=1)) is None
        True
    """
    if not any(isinstance(part, PrefixTokens) for part in model.modules()):
        raise VitrailError(
            f"{model.variant or type(model).__name__} has no class token whose attention could choose tokens.\n"
            "Merge similar tokens instead (merge_tokens)."
        )
