"""Parameter groups: layer-wise learning rates, weight decay and freezing.

All backbones have the same order of modules from input to output (embedding, the blocks of each stage, norm and head),
so layer-wise decay and freezing work on all of them.
"""

from collections import defaultdict
from typing import Any

from torch import nn

from vitrail.errors import VitrailError


def layers(model: nn.Module) -> list[list[nn.Module]]:
    """List the modules of a classifier from input to output: embedding, each block, and last norm and head.

    The entry of a stage belongs to its first block, and is a layer of its own if no block follows.

    Example:
        >>> from vitrail.models import create_model
        >>> len(layers(create_model("vit_tiny_patch16_224", depth=3)))
        5
    """
    backbone: Any = model.backbone
    order: list[list[nn.Module]] = [[backbone.embedding]]
    for stage in backbone.stages:
        first, *rest = [*stage.blocks] or [None]
        order.append([stage.entry] if first is None else [stage.entry, first])
        order += [[block] for block in rest]
    return [*order, [backbone.norm, model.head]]  # pyright: ignore[reportReturnType]


def blocks(model: nn.Module) -> list[nn.Module]:
    """List the blocks of a model in order, the units that FSDP gathers."""
    return [modules[-1] for modules in layers(model)[1:-1]]


def freeze(model: nn.Module, what: str) -> list[nn.Module]:
    """Freeze a part of the model.

    Args:
        model: a classifier.
        what: `none`, `embedding`, a number n (the embedding and the first n stages) or `backbone`.

    Returns:
        The frozen modules. They must run in evaluation mode, so that their statistics stay fixed and no path is
        dropped.
    """
    if what == "none":
        return []
    backbone: Any = model.backbone
    if what == "backbone":
        frozen = [backbone]
    else:
        count = 0 if what == "embedding" else int(what)
        if count > len(backbone.stages):
            raise VitrailError(
                f"freeze is {count}, but the model has {len(backbone.stages)} stages. Give at most that, or backbone."
            )
        frozen = [backbone.embedding, *backbone.stages[:count]]
    for module in frozen:
        module.requires_grad_(False)
    return frozen


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Group the trainable parameters by learning rate and weight decay.

    rate of layer l of L = rate * layer_decay^(L - l), the head being layer L (Clark et al. 2020, ELECTRA, as in BEiT).
    Only the matrices and kernels of layers decay; biases, norms, tokens and position tables do not.

    Args:
        model: a classifier.
        weight_decay: decay of the matrices.
        layer_decay: factor for each layer further from the head.

    Returns:
        Groups for an optimizer; each holds its `scale`, the factor on the run's learning rate.
    """
    order = layers(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    seen: set[nn.Parameter] = set()
    for depth, modules in enumerate(order):
        scale = layer_decay ** (len(order) - 1 - depth)
        for module in modules:
            for name, parameter in module.named_parameters():
                if parameter.requires_grad and parameter not in seen:
                    seen.add(parameter)
                    groups[scale, weight_decay if _decays(name, parameter) else 0.0].append(parameter)
    missed = [name for name, p in model.named_parameters() if p.requires_grad and p not in seen]
    assert not missed, f"parameters outside the socket: {missed}"
    return [{"params": group, "scale": scale, "weight_decay": decay} for (scale, decay), group in groups.items()]


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim >= 2 and name.rpartition(".")[2] == "weight"
