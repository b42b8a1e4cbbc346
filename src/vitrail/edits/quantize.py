"""Weights of linear layers stored in eight or four bits."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from vitrail.edits.edit import Edit, Kind, submodule
from vitrail.edits.low_rank import put
from vitrail.errors import VitrailError, unknown
from vitrail.parts.fake_quantized_linear import FakeQuantizedLinear
from vitrail.parts.model import Model
from vitrail.parts.quantized_linear import FORMATS, QuantizedLinear, absmax, dense, least_squares, quantized

LEAST = 1024
"""Weights of the smallest layer that `quantizable_layers` lists."""


@dataclass(frozen=True)
class QuantizeWeights(Edit):
    """Store the weights of linear layers in a format of eight or four bits (`parts/quantized_linear.py`).

    Args:
        formats: `int8`, `int4` or `codebook` for each layer, by its name.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1)
        >>> QuantizeWeights({"backbone.stages.0.blocks.0.channel_mixer.fc1": "int4"}).apply(model)
        >>> model.backbone.stages[0].blocks[0].channel_mixer.fc1
        Int4Linear(192, 768, bias=True)
    """

    kind: ClassVar[str] = "quantize_weights"
    formats: Mapping[str, str]

    def __post_init__(self) -> None:
        if not isinstance(self.formats, Mapping) or not self.formats:
            raise VitrailError(f"Got formats {self.formats!r}; a mapping from names of layers to formats is needed.")
        for given in self.formats.values():
            if given not in FORMATS:
                raise unknown("format of weights", str(given), FORMATS)
        object.__setattr__(self, "formats", {str(name): given for name, given in self.formats.items()})

    def apply(self, model: Model) -> None:
        """Encode the weights; all errors weigh alike."""
        self.encode(model, {})

    def encode(self, model: Model, moments: Mapping[str, Tensor]) -> None:
        """Encode the weights of a model; errors weigh as much as the inputs that they meet.

        Args:
            model: model to change.
            moments: mean squares of the inputs of layers, `(in,)`, by name of the layer.
        """
        for name, layer in self._layers(model).items():
            new = quantized(layer, FORMATS[self.formats[name]])
            # A model trained with rounded weights has its codes already, of the largest weight of each group.
            rule = absmax if type(layer) is not nn.Linear or new.name == "int8" else least_squares
            new.encode(layer.weight, rule, moments.get(name))
            put(model, name, new)

    def rebuild(self, model: Model) -> None:
        """Put empty layers in place."""
        for name, layer in self._layers(model).items():
            put(model, name, quantized(layer, FORMATS[self.formats[name]]))

    def _layers(self, model: Model) -> dict[str, nn.Linear]:
        layers: dict[str, Any] = {name: submodule(model, name) for name in self.formats}
        for name, layer in layers.items():
            if (reason := unquantizable_reason(model, layer)) is not None:
                raise VitrailError(f"The weights of {name} cannot be quantized: {reason}.")
        return layers

    def summary(self) -> str:
        """Return how many layers have which format."""
        given = list(self.formats.values())
        counts = [f"{given.count(name)} layers in {name}" for name in FORMATS if name in given]
        return "weights quantized: " + ", ".join(counts)


EDIT = QuantizeWeights


def unquantizable_reason(model: nn.Module, layer: nn.Module) -> str | None:
    """Return why the weights of a layer cannot be quantized, or None.

    Example:
        >>> layer = nn.Linear(64, 64)
        >>> unquantizable_reason(nn.Sequential(layer), layer) is None
        True
    """
    if type(layer) is not nn.Linear and type(layer) is not FakeQuantizedLinear:
        return f"{type(layer).__name__} is no plain linear layer"
    owners = sum(weight is layer.weight for part in model.modules() for weight in part._parameters.values())
    places = sum(child is layer for part in model.modules() for child in part._modules.values())
    return "its weights are shared with another module" if owners > 1 or places > 1 else None


def quantizable_layers(model: nn.Module, least: int = LEAST) -> dict[str, int]:
    """Return the number of weights of each linear layer that can be quantized, by its name.

    Args:
        model: the model.
        least: weights of the smallest layer.

    Example:
        >>> from vitrail.models import create_model
        >>> sum(quantizable_layers(create_model("vit_tiny_patch16_224")).values())
        5500416
    """
    named: list[tuple[str, Any]] = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    return {
        name: layer.weight.numel()
        for name, layer in named
        if layer.weight.numel() >= least and unquantizable_reason(model, layer) is None
    }


def quantize_weights(model: Model, formats: Mapping[str, str], moments: Mapping[str, Tensor] | None = None) -> Model:
    """Quantize weights, record the edit in `model.edits`, and return the model.

    Args:
        model: model to change.
        formats: format of each layer, by its name.
        moments: mean squares of the inputs of layers, by name of the layer; without them all errors weigh alike.
    """
    edit = QuantizeWeights(formats)
    edit.encode(model, moments or {})
    model.edits = (*model.edits, edit)
    return model


def with_dense_weights(model: Kind) -> Kind:
    """Return a model with plain linear layers in place of quantized ones: a copy, or the model itself if it has none.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1)
        >>> with_dense_weights(model) is model
        True
    """
    if not any(isinstance(module, QuantizedLinear) for module in model.modules()):
        return model
    copied = deepcopy(model)
    for name, module in list(copied.named_modules()):
        if isinstance(module, QuantizedLinear):
            put(copied, name, dense(module))
    return copied
