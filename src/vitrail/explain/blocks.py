"""Where a model mixes tokens: the blocks that every tool of this room walks."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from torch import Tensor, nn

from vitrail.errors import VitrailError, unknown
from vitrail.parts.attend import Attend
from vitrail.parts.backbone import Backbone
from vitrail.parts.exported_file import check_layers
from vitrail.parts.token_reduction import FewerTokensStage


@dataclass(frozen=True)
class MixingBlock:
    """One block that mixes tokens.

    Args:
        name: the name of its token mixer, such as `backbone.stages.2.blocks.1.token_mixer`.
        stage: index of its stage.
        index: its index within the stage.
        module: the token mixer, or the whole block if the block has no separate mixer.
        address: short name: `2.1` is block 1 of stage 2, and `5` block 5 of a model with one stage, counted from 0
            as in the name.
    """

    name: str
    stage: int
    index: int
    module: nn.Module
    address: str

    @property
    def title(self) -> str:
        """Title of its figure."""
        return f"block {self.address}"


def mixing_blocks(model: nn.Module) -> list[MixingBlock]:
    """List the blocks that mix tokens, first to last; without those of fewer tokens, which have no place.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=2)
        >>> [block.title for block in mixing_blocks(model)]
        ['block 0', 'block 1']
    """
    names = {module: name for name, module in model.named_modules()}
    found, stages = [], backbone_of(model).stages
    for i, stage in enumerate(stages):
        for j, block in enumerate(() if isinstance(stage, FewerTokensStage) else getattr(stage, "blocks", ())):
            module = getattr(block, "token_mixer", None) or block
            found.append(MixingBlock(names[module], i, j, module, f"{i}.{j}" if len(stages) > 1 else str(j)))
    return found


def attending_blocks(model: nn.Module) -> list[MixingBlock]:
    """List the blocks that compute softmax attention whose tokens have places; none for a model without any.

    Example:
        >>> from vitrail.models import create_model
        >>> len(attending_blocks(create_model("vit_tiny_patch16_224", depth=3)))
        3
    """
    return [block for block in mixing_blocks(model) if leaf_of(block.module) and hasattr(block.module, "token_index")]


def leaf_of(mixer: nn.Module) -> Attend | None:
    """Return the leaf of a mixer that computes its attention, if it does any."""
    return next((module for module in mixer.modules() if isinstance(module, Attend)), None)


def backbone_of(model: nn.Module) -> Backbone:
    """Return the backbone of a classifier, or the backbone that was given.

    Raises:
        VitrailError: if the model has none.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1)
        >>> backbone_of(model) is model.backbone
        True
    """
    check_layers(model, "its layers are needed to look inside")
    backbone = getattr(model, "backbone", model)
    if isinstance(backbone, Backbone):
        return backbone
    raise VitrailError(f"Cannot look inside {type(model).__name__}: it has no vitrail Backbone inside.")


def choose(blocks: Sequence[MixingBlock], which: int | str) -> MixingBlock:
    """Pick a block by its index among those that are given (negative from the end), its address or its name.

    Raises:
        VitrailError: if there is no such block, or no block at all.

    Example:
        >>> from vitrail.models import create_model
        >>> blocks = mixing_blocks(create_model("swin_tiny_patch4_window7_224"))
        >>> choose(blocks, "2.1").name, choose(blocks, -1).title
        ('backbone.stages.2.blocks.1.token_mixer', 'block 3.1')
    """
    if not blocks:
        raise VitrailError(
            "The model has no block that mixes tokens on one grid: each stage is a single downsampling block.\n"
            "The method saliency works for every model."
        )
    if isinstance(which, int):
        if -len(blocks) <= which < len(blocks):
            return blocks[which]
    elif found := [block for block in blocks if which in (block.address, block.name)]:
        return found[0]
    elif "blocks" in which:
        raise unknown("block", which, [block.name for block in blocks])
    raise VitrailError(f"There is no block {which}. {range_of(blocks)}")


def choose_attending(model: nn.Module, which: int | str | None = None) -> MixingBlock:
    """Pick a block with attention maps, by default the last; an index counts through all blocks of the model.

    Raises:
        VitrailError: if there is no such block, or it computes no attention.

    Example:
        >>> from vitrail.models import create_model
        >>> choose_attending(create_model("vit_tiny_patch16_224", depth=3)).name
        'backbone.stages.0.blocks.2.token_mixer'
    """
    having = attending_blocks(model)
    if which is None:
        return having[-1]
    block = choose(mixing_blocks(model), which)
    if block in having:
        return block
    raise VitrailError(
        f"{block.title.capitalize()} of {name_of(model)} computes no softmax attention, so it has no maps.\n"
        f"{range_of(having, 'The blocks with attention')}\n"
        "The method influence shows what any block does."
    )


def range_of(blocks: Sequence[MixingBlock], what: str = "The blocks") -> str:
    """Say how blocks are called.

    Example:
        >>> from vitrail.models import create_model
        >>> range_of(mixing_blocks(create_model("vit_tiny_patch16_224")))
        'The blocks are 0 to 11; -1 is the last.'
        >>> range_of(mixing_blocks(create_model("swin_tiny_patch4_window7_224")))
        'The blocks are 0.0 to 3.1, STAGE.BLOCK counted from 0, the stages have 2, 2, 6 and 2; -1 is the last.'
    """
    first, last = blocks[0], blocks[-1]
    said = f"{what} are {first.address} to {last.address}"
    if "." in first.address:
        counts = [str(len(list(stage))) for _, stage in groupby(blocks, lambda block: block.stage)]
        several = f", the stages have {', '.join(counts[:-1])} and {counts[-1]}" if len(counts) > 1 else ""
        said += f", STAGE.BLOCK counted from 0{several}"
    return f"{said}; -1 is the last."


def name_of(model: nn.Module) -> str:
    """Return the model's name in the catalogue, or that of its class.

    Example:
        >>> from vitrail.models import create_model
        >>> name_of(create_model("vit_tiny_patch16_224", depth=1))
        'vit_tiny_patch16_224'
    """
    return getattr(model, "variant", "") or type(model).__name__


def check_images(images: Tensor) -> None:
    """Check that `images` is a batch of images.

    Raises:
        VitrailError: if the shape is not `(B, C, Y, X)` with at least one image.

    Example:
        >>> import torch
        >>> check_images(torch.zeros(1, 3, 8, 8)) is None
        True
    """
    if images.ndim != 4 or len(images) == 0:
        raise VitrailError(
            f"Need a batch of images (B, C, Y, X) with B >= 1, got {tuple(images.shape)}."
            + (" For one image write images[None]." if images.ndim == 3 else "")
        )
