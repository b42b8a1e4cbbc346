"""Heads removed from attention: smaller projections, no masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from vitrail.edits.edit import Edit, index_lists, submodule
from vitrail.edits.head_layouts import LAYOUTS, head_axes, shared_reason
from vitrail.edits.slicing import GroupAxis, take_groups
from vitrail.errors import VitrailError
from vitrail.parts.model import Model


@dataclass(frozen=True)
class PruneHeads(Edit):
    """Keep some heads of each mixer.

    y = W_o concat_h a_h with the columns of W_o and the rows of W_q, W_k, W_v of the heads h kept: the output of the
    mixer with zeros in place of the other heads. "Are Sixteen Heads Really Better than One?", section 2.3.

    Args:
        keep: numbers of the heads that stay, by name of the mixer.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1)
        >>> PruneHeads({"backbone.stages.0.blocks.0.token_mixer": [1]}).apply(model)
        >>> model.backbone.stages[0].blocks[0].token_mixer.qkv
        Linear(in_features=192, out_features=192, bias=True)
    """

    kind: ClassVar[str] = "prune_heads"
    keep: Mapping[str, Sequence[int]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", index_lists(self.keep))

    def apply(self, model: Model) -> None:
        """Slice every tensor that has an axis over heads."""
        for name, mixer, axes in [self._found(model, name) for name in self.keep]:
            heads, keep = mixer.num_heads, self.keep[name]
            take_groups(mixer, axes, heads, keep)
            for part in mixer.children():  # the leaf of window attention cuts heads itself
                if hasattr(part, "num_heads"):
                    part.num_heads = len(keep)
            mixer.num_heads = len(keep)

    def _found(self, model: Model, name: str) -> tuple[str, Any, list[GroupAxis]]:
        mixer: Any = submodule(model, name)
        try:
            axes = head_axes(mixer)
        except VitrailError as error:
            raise VitrailError(f"Heads of {name} ({type(mixer).__name__}) cannot be removed: {error}.") from error
        if reason := shared_reason(model, mixer):
            raise VitrailError(f"Heads of {name} ({type(mixer).__name__}) cannot be removed: {reason}.")
        if self.keep[name][-1] >= mixer.num_heads:
            raise VitrailError(f"{name} has {mixer.num_heads} heads, and number {self.keep[name][-1]} is to be kept.")
        return name, mixer, axes

    def summary(self) -> str:
        """Return how many heads are left."""
        return f"heads removed: {sum(map(len, self.keep.values()))} left in {len(self.keep)} layers"


EDIT = PruneHeads


def prunable_heads(model: nn.Module) -> dict[str, int]:
    """Return the number of heads of each mixer that can lose some, by its name.

    Example:
        >>> from vitrail.models import create_model
        >>> list(prunable_heads(create_model("vit_tiny_patch16_224", depth=2)).values())
        [3, 3]
    """
    reasons = head_reasons(model)
    return {name: module.num_heads for name, module in model.named_modules() if reasons.get(name, "-") is None}  # pyright: ignore[reportReturnType]


def head_reasons(model: nn.Module) -> dict[str, str | None]:
    """Return of each module with heads why it cannot lose some, or None, by its name.

    Example:
        >>> from vitrail.models import create_model
        >>> set(head_reasons(create_model("vit_tiny_patch16_224", depth=2)).values())
        {None}
    """
    found: dict[str, str | None] = {}
    for name, module in model.named_modules():
        if not hasattr(module, "num_heads") or not (type(module) in LAYOUTS or hasattr(module, "attend")):
            continue
        try:
            head_axes(module)
            found[name] = shared_reason(model, module)
        except VitrailError as error:
            found[name] = str(error)
    return found
