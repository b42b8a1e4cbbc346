"""Where a model mixes tokens: the layers that every tool of this room walks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from vitrail.errors import VitrailError, unknown
from vitrail.parts.attend import Attend
from vitrail.parts.backbone import Backbone


@dataclass(frozen=True)
class Layer:
    """One layer that mixes tokens.

    Args:
        name: its name in the model, such as `backbone.stages.0.blocks.3.token_mixer`.
        stage: index of its stage.
        block: index of its block within the stage.
        module: the token mixer, or the whole block where a block is made of one piece.
        title: what to write over its picture; all is counted from 0, as in the name.
    """

    name: str
    stage: int
    block: int
    module: nn.Module
    title: str


def mixing_layers(model: nn.Module) -> list[Layer]:
    """List the layers that mix tokens, first to last.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=2)
        >>> [layer.title for layer in mixing_layers(model)]
        ['block 0', 'block 1']
    """
    names = {module: name for name, module in model.named_modules()}
    found, stages = [], backbone_of(model).stages
    for i, stage in enumerate(stages):
        for j, block in enumerate(getattr(stage, "blocks", ())):
            module = getattr(block, "token_mixer", None) or block
            title = f"stage {i} block {j}" if len(stages) > 1 else f"block {j}"
            found.append(Layer(names[module], i, j, module, title))
    return found


def attending_layers(model: nn.Module) -> list[Layer]:
    """List the layers that compute softmax attention; none for a model without any."""
    return [layer for layer in mixing_layers(model) if leaf_of(layer.module)]


def leaf_of(mixer: nn.Module) -> Attend | None:
    """Return the leaf of a mixer that computes its attention, if it does any."""
    return next((module for module in mixer.modules() if isinstance(module, Attend)), None)


def backbone_of(model: nn.Module) -> Backbone:
    """Return the backbone of a classifier, or the backbone that was given.

    Raises:
        VitrailError: if the model has none.
    """
    backbone = getattr(model, "backbone", model)
    if isinstance(backbone, Backbone):
        return backbone
    raise VitrailError(f"Cannot look inside {type(model).__name__}: it has no vitrail Backbone inside.")


def choose(layers: Sequence[Layer], which: int | str) -> Layer:
    """Pick a layer by its index (negative from the end) or its name.

    Raises:
        VitrailError: if there is no such layer.
    """
    if isinstance(which, str):
        named = {layer.name: layer for layer in layers}
        if which not in named:
            raise unknown("layer", which, named)
        return named[which]
    if not -len(layers) <= which < len(layers):
        raise VitrailError(f"There is no layer {which}: the layers are 0 to {len(layers) - 1}, or -1 for the last.")
    return layers[which]


def name_of(model: nn.Module) -> str:
    """Return the model's name in the catalogue, or that of its class."""
    return getattr(model, "variant", "") or type(model).__name__


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode; afterwards every module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def check_images(images: Tensor) -> None:
    """Refuse what is no batch of pictures.

    Raises:
        VitrailError: if the shape is not `(B, C, Y, X)` with at least one picture.
    """
    if images.ndim != 4 or len(images) == 0:
        raise VitrailError(
            f"Need a batch of pictures (B, C, Y, X) with B >= 1, got {tuple(images.shape)}."
            + (" For one picture write images[None]." if images.ndim == 3 else "")
        )
