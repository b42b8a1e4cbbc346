"""Channels removed from the residual stream: every layer that reads or writes it gets narrower."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from vitrail.edits.edit import Edit, index_lists
from vitrail.edits.slicing import find, take_groups
from vitrail.edits.stream_layouts import Stream, streams
from vitrail.errors import VitrailError, unknown
from vitrail.parts.model import Model


@dataclass(frozen=True)
class PruneWidth(Edit):
    """Keep some channels of each residual stream.

    Norms take their statistics over the channels kept, mergings lose them in each of their 2 x 2 cells, and no other
    channel is moved. It computes what the model with zeros in the other channels does, if its norms do not count those.
    The dependencies are those of "DepGraph: Towards Any Structural Pruning", from a table instead of a trace.

    Args:
        keep: numbers of the channels that stay, by name of the stage that begins the stream.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1)
        >>> PruneWidth({"backbone.stages.0": range(144)}).apply(model)
        >>> model.backbone.stages[0].blocks[0].token_mixer.qkv
        Linear(in_features=144, out_features=576, bias=True)
    """

    kind: ClassVar[str] = "prune_width"
    keep: Mapping[str, Sequence[int]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", index_lists(self.keep))

    def apply(self, model: Model) -> None:
        """Slice every tensor that has an axis over channels of the stream."""
        for stream, keep in [(self._found(model, name), self.keep[name]) for name in self.keep]:
            take_groups(model, stream.axes, stream.width, keep)
            for path, axis, _ in stream.axes:
                _state_width(*find(model, path, axis))

    def _found(self, model: Model, name: str) -> Stream:
        known = _streams(model)
        if name not in known:
            raise unknown("stage that begins a residual stream", name, known)
        width, most = known[name].width, self.keep[name][-1]
        if most >= width:
            raise VitrailError(f"The stream of {name} has {width} channels, and number {most} is to be kept.")
        return known[name]

    def summary(self) -> str:
        """Return how wide the streams are."""
        return f"residual stream narrowed to {', '.join(str(len(kept)) for kept in self.keep.values())} channels"


EDIT = PruneWidth


def _streams(model: Model) -> dict[str, Stream]:
    try:
        return streams(model)
    except VitrailError as reason:
        raise VitrailError(
            f"The residual stream of {model.variant or type(model).__name__} cannot lose channels: {reason}."
        ) from reason


def _state_width(owner: Any, name: str) -> None:
    """Give a norm the width of its weights."""
    width = len(getattr(owner, name))
    if isinstance(owner, nn.LayerNorm):
        owner.normalized_shape = (width,)
    if isinstance(owner, nn.GroupNorm):
        owner.num_channels = width


def stream_widths(model: Model) -> dict[str, int]:
    """Return the channels of each residual stream that can lose some, by name of the stage that begins it.

    Example:
        >>> from vitrail.models import create_model
        >>> stream_widths(create_model("vit_tiny_patch16_224", depth=2))
        {'backbone.stages.0': 192}
    """
    try:
        return {name: stream.width for name, stream in streams(model).items()}
    except VitrailError:
        return {}
