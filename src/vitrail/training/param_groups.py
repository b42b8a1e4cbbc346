"""Parameter groups: layer-wise learning rates, weight decay and freezing.

`Model.layers()` lists the modules of every model from input to output, so layer-wise decay and freezing work on all.
"""

from collections import defaultdict
from typing import Any

from torch import nn

from vitrail.errors import VitrailError
from vitrail.parts.model import Model


def blocks(model: Model) -> list[nn.Module]:
    """List the blocks of a model in order, the units that FSDP gathers.

    Example:
        >>> from vitrail.models import create_model
        >>> len(blocks(create_model("vit_tiny_patch16_224", depth=3)))
        3
    """
    return [layer.modules[-1] for layer in model.layers()[1:-1]]


def hidden_matrices(model: Model) -> list[nn.Parameter]:
    """List the trainable matrices between the embedding and the head.

    Example:
        >>> from vitrail.models import create_model
        >>> len(hidden_matrices(create_model("vit_tiny_patch16_224", depth=1)))
        4
    """
    inner = [module for layer in model.layers()[1:-1] for module in layer.modules]
    found = [(name, p) for module in inner for name, p in module.named_parameters()]
    return [p for name, p in found if p.requires_grad and p.ndim == 2 and name.rpartition(".")[2] == "weight"]


def freeze(model: Model, what: str) -> list[nn.Module]:
    """Freeze a part of the model.

    Args:
        model: a model of the catalogue.
        what: `none`, `embedding`, a number n (the embedding and the first n stages) or `backbone`.

    Returns:
        The frozen modules. They must run in evaluation mode, so that their statistics stay fixed and no path is
        dropped.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1, num_classes=2)
        >>> _ = freeze(model, "backbone")
        >>> sorted({name.split(".")[0] for name, value in model.named_parameters() if value.requires_grad})
        ['head']
    """
    frozen = [module for modules in frozen_layers(model, what) for module in modules]
    for module in frozen:
        module.requires_grad_(False)
    return frozen


def frozen_layers(model: Model, what: str) -> list[list[nn.Module]]:
    """List the modules of each layer of a part; see `freeze`."""
    if what == "none":
        return []
    layers = model.layers()
    stages = layers[-1].stage - 1
    last = stages + 1 if what == "backbone" else 0 if what == "embedding" else int(what)
    if what != "backbone" and last > stages:
        raise VitrailError(f"freeze is {what}, but the model has {stages} stages. Give at most that, or backbone.")
    below = [layer.modules for layer in layers if layer.stage <= last]
    return [[module for module in modules if module is not model.head] for modules in below]


def parameter_groups(model: Model, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Group the trainable parameters by learning rate and weight decay.

    rate of layer l of L = rate * layer_decay^(L - l), the head being layer L (Clark et al. 2020, ELECTRA, as in BEiT).
    Only the matrices and kernels of layers decay; biases, norms, tokens and position tables do not.

    Args:
        model: a model of the catalogue.
        weight_decay: decay of the matrices.
        layer_decay: factor for each layer further from the head.

    Raises:
        VitrailError: `layers()` of the model leaves a parameter out.

    Returns:
        Groups for an optimizer; each holds its `scale`, the factor on the run's learning rate.

    Example:
        >>> from vitrail.models import create_model
        >>> groups = parameter_groups(create_model("vit_tiny_patch16_224", depth=1), weight_decay=0.1, layer_decay=1.0)
        >>> sorted({group["weight_decay"] for group in groups})
        [0.0, 0.1]
    """
    order = model.layers()
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    seen: set[nn.Parameter] = set()
    for depth, layer in enumerate(order):
        scale = layer_decay ** (len(order) - 1 - depth)
        for module in layer.modules:
            for name, parameter in module.named_parameters():
                if parameter.requires_grad and parameter not in seen:
                    seen.add(parameter)
                    groups[scale, weight_decay if _decays(name, parameter) else 0.0].append(parameter)
    missed = [name for name, p in model.named_parameters() if p.requires_grad and p not in seen]
    if missed:
        raise VitrailError(
            f"{type(model).__name__}.layers() leaves parameters out, first {missed[0]}: none would learn."
        )
    return [{"params": group, "scale": scale, "weight_decay": decay} for (scale, decay), group in groups.items()]


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim >= 2 and name.rpartition(".")[2] == "weight"
