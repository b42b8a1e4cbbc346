"""Hidden channels removed from MLPs: narrower layers, no masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from vitrail.edits.edit import Edit, index_lists, submodule
from vitrail.edits.head_layouts import shared_reason
from vitrail.edits.slicing import GroupAxis, take_groups
from vitrail.errors import VitrailError
from vitrail.parts.channel_mixers import MLP, GatedMLP
from vitrail.parts.depthwise_mlp import DepthwiseMLP
from vitrail.parts.factorized_linear import FactorizedLinear
from vitrail.parts.model import Model

_FIRST, _LAST = (GroupAxis("fc1.weight"), GroupAxis("fc1.bias")), (GroupAxis("fc2.weight", 1),)

HIDDEN: Mapping[type[nn.Module], tuple[GroupAxis, ...]] = {
    MLP: (*_FIRST, *_LAST),
    GatedMLP: (GroupAxis("fc1.weight", 0, 2), GroupAxis("fc1.bias", 0, 2), *_LAST),
    DepthwiseMLP: (*_FIRST, GroupAxis("conv.weight"), GroupAxis("conv.bias"), *_LAST),
}
"""MLPs of exactly these types: a hidden channel meets the others in the last layer only."""


@dataclass(frozen=True)
class PruneHidden(Edit):
    """Keep some hidden channels of each MLP.

    W_2 act(W_1 x) with some rows of W_1 and the same columns of W_2: the MLP with zeros in place of the other channels.

    Args:
        keep: numbers of the hidden channels that stay, by name of the MLP.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1)
        >>> PruneHidden({"backbone.stages.0.blocks.0.channel_mixer": range(64)}).apply(model)
        >>> model.backbone.stages[0].blocks[0].channel_mixer.fc2
        Linear(in_features=64, out_features=192, bias=True)
    """

    kind: ClassVar[str] = "prune_hidden"
    keep: Mapping[str, Sequence[int]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", index_lists(self.keep))

    def apply(self, model: Model) -> None:
        """Slice every tensor that has an axis over hidden channels."""
        for name, mixer in [(name, self._found(model, name)) for name in self.keep]:
            take_groups(mixer, HIDDEN[type(mixer)], mixer.fc2.in_features, self.keep[name])

    def _found(self, model: Model, name: str) -> Any:
        mixer: Any = submodule(model, name)
        reason = fixed_width_reason(mixer) or shared_reason(model, mixer)
        if reason is not None:
            raise VitrailError(f"Hidden channels of {name} cannot be removed: {reason}.")
        width, last = mixer.fc2.in_features, self.keep[name][-1]
        if last >= width:
            raise VitrailError(f"{name} has {width} hidden channels, and number {last} is to be kept.")
        return mixer

    def summary(self) -> str:
        """Return how many channels are left."""
        return f"hidden channels removed: {sum(map(len, self.keep.values())):,} left in {len(self.keep)} MLPs"


EDIT = PruneHidden


def fixed_width_reason(mixer: nn.Module) -> str | None:
    """Return why an MLP cannot lose hidden channels, or None."""
    if type(mixer) not in HIDDEN:
        return f"{type(mixer).__name__} is no MLP whose hidden channels are separate terms of its output"
    for name in ("fc1", "fc2"):
        if type(getattr(mixer, name)) not in (nn.Linear, FactorizedLinear):
            return f"its {name} is {type(getattr(mixer, name)).__name__}"
    own = {"fc1", "fc2", "conv"}
    parts = [part for name, child in mixer.named_children() if name not in own for part in child.modules()]
    wide = next((part for part in parts for value in part.parameters(recurse=False) if value.numel() > 1), None)
    return None if wide is None else f"its {type(wide).__name__} has weights of all hidden channels"


def prunable_hidden(model: nn.Module) -> dict[str, int]:
    """Return the hidden channels of each MLP that can lose some, by its name.

    Example:
        >>> from vitrail.models import create_model
        >>> list(prunable_hidden(create_model("vit_tiny_patch16_224", depth=2)).values())
        [768, 768]
    """
    found: list[tuple[str, Any]] = [(name, module) for name, module in model.named_modules() if type(module) in HIDDEN]
    return {
        name: mixer.fc2.in_features
        for name, mixer in found
        if fixed_width_reason(mixer) is None and shared_reason(model, mixer) is None
    }
