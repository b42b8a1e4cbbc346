"""Weights rounded in the forward pass: quantization-aware fine-tuning."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from vitrail.edits.edit import Edit, submodule
from vitrail.edits.low_rank import put
from vitrail.edits.quantize import unquantizable_reason
from vitrail.errors import VitrailError, unknown
from vitrail.parts.fake_quantized_linear import FakeQuantizedLinear
from vitrail.parts.model import Model
from vitrail.parts.quantized_linear import FORMATS

ROUNDED = ("int8", "int4")
"""Formats that are cheap enough to encode in each step; the clusters of a codebook are not."""


@dataclass(frozen=True)
class FakeQuantizeWeights(Edit):
    """Round the weights of linear layers in each forward pass, and train them through the rounding.

    Fine-tune the model (`vitrail train --weights FOLDER`), then store the weights with `QuantizeWeights` in the same
    formats: the codes are those that it was trained with.

    Args:
        formats: `int8` or `int4` for each layer, by its name.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1)
        >>> FakeQuantizeWeights({"backbone.stages.0.blocks.0.channel_mixer.fc1": "int4"}).apply(model)
        >>> type(model.backbone.stages[0].blocks[0].channel_mixer.fc1).__name__
        'FakeQuantizedLinear'
    """

    kind: ClassVar[str] = "fake_quantize"
    formats: Mapping[str, str]

    def __post_init__(self) -> None:
        if not isinstance(self.formats, Mapping) or not self.formats:
            raise VitrailError(f"Got formats {self.formats!r}; a mapping from names of layers to formats is needed.")
        for given in self.formats.values():
            if given not in ROUNDED:
                raise unknown("format for rounded weights", str(given), ROUNDED)
        object.__setattr__(self, "formats", {str(name): given for name, given in self.formats.items()})

    def apply(self, model: Model) -> None:
        """Replace the layers; the weights stay as they are."""
        layers: dict[str, Any] = {name: submodule(model, name) for name in self.formats}
        for name, layer in layers.items():
            reason = unquantizable_reason(model, layer) if type(layer) is nn.Linear else "it is no plain linear layer"
            if reason is not None:
                raise VitrailError(f"The weights of {name} cannot be rounded: {reason}.")
        for name, layer in layers.items():
            put(model, name, FakeQuantizedLinear(layer, FORMATS[self.formats[name]]))

    def summary(self) -> str:
        """Return how many layers are rounded."""
        given = list(self.formats.values())
        counts = [f"{given.count(name)} layers to {name}" for name in ROUNDED if name in given]
        return "weights rounded in training: " + ", ".join(counts)


EDIT = FakeQuantizeWeights
