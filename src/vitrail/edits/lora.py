"""Linear layers with a trained change of low rank: LoRA."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from vitrail.edits.edit import Edit, Kind, submodule
from vitrail.edits.low_rank import put
from vitrail.errors import VitrailError, unknown
from vitrail.parts.lora_linear import LoRALinear
from vitrail.parts.model import Model


@dataclass(frozen=True)
class LoRA(Edit):
    """Give linear layers trained changes of low rank; their own weights are frozen.

    Args:
        ranks: rank of the change of each layer, by its name.
        alpha: the change is scaled by `alpha / rank`.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1)
        >>> LoRA({"backbone.stages.0.blocks.0.token_mixer.qkv": 8}, alpha=16.0).apply(model)
        >>> model.backbone.stages[0].blocks[0].token_mixer.qkv.a.shape
        torch.Size([8, 192])
    """

    kind: ClassVar[str] = "lora"
    ranks: Mapping[str, int]
    alpha: float

    def __post_init__(self) -> None:
        if not isinstance(self.ranks, Mapping) or not self.ranks:
            raise VitrailError(f"Got ranks {self.ranks!r}; a mapping from names of layers to ranks is needed.")
        wrong = next((rank for rank in self.ranks.values() if type(rank) is not int or rank < 1), None)
        if wrong is not None:
            raise VitrailError(f"A rank is a whole number from 1 up, got {wrong!r}.")
        if not isinstance(self.alpha, int | float) or self.alpha <= 0:
            raise VitrailError(f"alpha is {self.alpha!r}; a number above 0 is needed.")
        object.__setattr__(self, "ranks", {str(name): rank for name, rank in self.ranks.items()})

    def apply(self, model: Model) -> None:
        """Put an adapter around each layer."""
        layers = {name: submodule(model, name) for name in self.ranks}
        for name, layer in layers.items():
            if type(layer) is not nn.Linear:
                raise VitrailError(f"{name} is {type(layer).__name__}; only plain linear layers get adapters.")
        for name, layer in layers.items():
            put(model, name, LoRALinear(layer, self.ranks[name], self.alpha).train(layer.training))  # pyright: ignore[reportArgumentType]

    def summary(self) -> str:
        """Return how many layers have which ranks."""
        return f"LoRA: {len(self.ranks)} layers of rank {min(self.ranks.values())} to {max(self.ranks.values())}"


EDIT = LoRA


def lora_of(model: Model, rank: int, alpha: float, targets: Sequence[str] = ()) -> LoRA:
    """Return adapters of a rank for the linear layers between embedding and head.

    Args:
        model: a model of the catalogue.
        rank: rank of each change.
        alpha: see `LoRA`.
        targets: last parts of the names of the layers, such as `qkv` and `proj`; without any, all linear layers.

    Raises:
        VitrailError: the model has no such layers.

    Example:
        >>> from vitrail.models import create_model
        >>> lora = lora_of(create_model("vit_tiny_patch16_224", depth=1), rank=4, alpha=8.0)
        >>> type(lora).__name__
        'LoRA'
    """
    names = linear_layers(model)
    ends = sorted({name.rpartition(".")[2] for name in names})
    wrong = next((target for target in targets if target not in ends), None)
    if wrong is not None:
        raise unknown("layer for LoRA", wrong, ends)
    chosen = [name for name in names if not targets or name.rpartition(".")[2] in targets]
    if not chosen:
        raise VitrailError(f"{model.variant} has no linear layers between embedding and head.")
    return LoRA(dict.fromkeys(chosen, rank), alpha)


def linear_layers(model: Model) -> list[str]:
    """Return the names of the plain linear layers between embedding and head.

    Example:
        >>> from vitrail.models import create_model
        >>> len(linear_layers(create_model("vit_tiny_patch16_224", depth=1)))
        4
    """
    inner = {id(part) for layer in model.layers()[1:-1] for module in layer.modules for part in module.modules()}
    return [name for name, part in model.named_modules() if type(part) is nn.Linear and id(part) in inner]


def adapters(model: nn.Module) -> dict[str, LoRALinear]:
    """Return the layers with adapters, by name.

    Example:
        >>> from vitrail.models import create_model
        >>> adapters(create_model("vit_tiny_patch16_224", depth=1))
        {}
    """
    return {name: part for name, part in model.named_modules() if isinstance(part, LoRALinear)}


def merge_lora(model: Kind) -> Kind:
    """Replace layers with adapters by plain ones of the merged weights, in place, and return the model.

    The outputs are the same up to rounding; `model.edits` no longer states LoRA.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1)
        >>> merge_lora(model) is model
        True
    """
    for name, layer in adapters(model).items():
        put(model, name, layer.merged())
    if any(isinstance(edit, LoRA) for edit in getattr(model, "edits", ())):
        model.edits = tuple(edit for edit in model.edits if not isinstance(edit, LoRA))
    return model


def train_adapters(model: Model) -> None:
    """Freeze everything but the adapters and the head."""
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    for layer in adapters(model).values():
        layer.a.requires_grad_(True)
        layer.b.requires_grad_(True)
