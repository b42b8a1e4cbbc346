"""Linear layers replaced by the product of two thin ones: the best one of that rank."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vitrail.edits.edit import Edit, submodule
from vitrail.errors import VitrailError
from vitrail.parts.factorized_linear import FactorizedLinear
from vitrail.parts.model import Model


@dataclass(frozen=True)
class LowRank(Edit):
    """Replace linear layers by `U (V x) + b` of a rank.

    U V is the truncated singular value decomposition of W, the nearest matrix of the rank in the Frobenius norm
    ("The approximation of one matrix by another of lower rank", Eckart and Young). `compress` may replace the factors
    by those that are nearest on the activations of data; the edit states shapes alone.

    Args:
        ranks: rank of each layer, by its name.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1)
        >>> LowRank({"backbone.stages.0.blocks.0.channel_mixer.fc1": 64}).apply(model)
        >>> model.backbone.stages[0].blocks[0].channel_mixer.fc1.rank
        64
    """

    kind: ClassVar[str] = "low_rank"
    ranks: Mapping[str, int]

    def __post_init__(self) -> None:
        if not isinstance(self.ranks, Mapping) or not self.ranks:
            raise VitrailError(f"Got ranks {self.ranks!r}; a mapping from names of layers to ranks is needed.")
        wrong = next((rank for rank in self.ranks.values() if type(rank) is not int or rank < 1), None)
        if wrong is not None:
            raise VitrailError(f"A rank is a whole number from 1 up, got {wrong!r}.")
        object.__setattr__(self, "ranks", {str(name): rank for name, rank in self.ranks.items()})

    def apply(self, model: Model) -> None:
        """Factorize each layer by its singular value decomposition."""
        self._replace(model, lambda layer, rank: factors(layer.weight, rank))

    def rebuild(self, model: Model) -> None:
        """Put empty factors in place of each layer."""
        self._replace(model, empty_factors)

    def _replace(self, model: Model, make: Any) -> None:
        layers = {name: self._layer(model, name, rank) for name, rank in self.ranks.items()}
        for name, layer in layers.items():
            put(model, name, factorized(layer, *make(layer, self.ranks[name])))

    def _layer(self, model: Model, name: str, rank: int) -> nn.Linear:
        layer = submodule(model, name)
        if type(layer) is not nn.Linear:
            raise VitrailError(f"{name} is {type(layer).__name__}; only plain linear layers get a lower rank.")
        if rank > min(layer.weight.shape):
            raise VitrailError(f"{name} of {tuple(layer.weight.shape)} has no rank {rank}.")
        return layer

    def summary(self) -> str:
        """Return how many layers have which ranks."""
        return f"low rank: {len(self.ranks)} layers of rank {min(self.ranks.values())} to {max(self.ranks.values())}"


EDIT = LowRank


def factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return U `(out, r)` and V `(r, in)` of the nearest product of a rank, each with the root of the singular values.

    Example:
        >>> u, v = factors(torch.ones(3, 2), rank=1)
        >>> torch.allclose(u @ v, torch.ones(3, 2))
        True
    """
    if weight.device.type == "meta":
        return weight.new_empty(weight.shape[0], rank), weight.new_empty(rank, weight.shape[1])
    u, s, v = torch.linalg.svd(weight.detach().double(), full_matrices=False)
    root = s[:rank].sqrt()
    return (u[:, :rank] * root).to(weight.dtype), (root[:, None] * v[:rank]).to(weight.dtype)


def empty_factors(layer: nn.Linear, rank: int) -> tuple[Tensor, Tensor]:
    """Return factors of that shape, to be filled.

    Example:
        >>> [tuple(each.shape) for each in empty_factors(nn.Linear(8, 6), rank=2)]
        [(6, 2), (2, 8)]
    """
    weight = layer.weight.detach()
    return weight.new_empty(weight.shape[0], rank), weight.new_empty(rank, weight.shape[1])


def factorized(layer: nn.Linear, u: Tensor, v: Tensor) -> FactorizedLinear:
    """Return a factorized layer of these factors with the bias of a layer, which is not copied."""
    trained = layer.weight.requires_grad
    with torch.device("meta"):
        new = FactorizedLinear(layer.in_features, layer.out_features, len(v), bias=layer.bias is not None)
    new.first.weight = nn.Parameter(v.contiguous(), requires_grad=trained)
    new.second.weight = nn.Parameter(u.contiguous(), requires_grad=trained)
    new.second.bias = layer.bias
    return new.train(layer.training)


def put(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put a module in the place of another, by name.

    Example:
        >>> model = nn.Sequential(nn.ReLU())
        >>> put(model, "0", nn.Identity())
        >>> model[0]
        Identity()
    """
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, new)
