"""Fused stages of bottlenecks, for CPU inference: a few images at a time, so that their maps stay in the cache."""

from collections.abc import Callable, Container, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitrail.fused.unsupported import NotConverted, Seats, check_parts, has_hooks, require_libraries
from vitrail.grid import Grid
from vitrail.native.allocator import empty
from vitrail.native.bottleneck import (
    GroupScale,
    Moments,
    PackedFilters,
    Size,
    Window,
    convolve,
    finalize,
    join,
    measure,
    pack_filters,
)
from vitrail.parts.bottlenecks import (
    Bottleneck,
    PostActivationBottleneck,
    PostActivationEntry,
    PreActivationBottleneck,
    PreActivationEntry,
)
from vitrail.parts.convolutions import SameStdConv2d, StdConv2d, standardise
from vitrail.parts.merging import NoMerging
from vitrail.parts.norms import GroupNormReLU, MapGroupNorm, TokenGroupNorm
from vitrail.parts.regularisation import DropPath
from vitrail.parts.stages import Stage
from vitrail.shapes import Tokens

TOGETHER = 8 << 20
"""Bytes of the widest maps of the images that are computed together; several such maps should fit in the L3."""


class Step(NamedTuple):
    """A map between two blocks of a stage, with its moments if they are known."""

    x: Tensor
    size: Size
    moments: Moments | None = None

    def measured(self) -> Moments:
        """Return its moments."""
        return measure(self.x) if self.moments is None else self.moments


class FusedBottleneck(nn.Module):
    """Common weights: three convolutions, their norms, and the projection of the shortcut or None."""

    def __init__(self, block: Bottleneck, dtype: torch.dtype):
        super().__init__()
        self.convs = [packed(conv, dtype) for conv in (block.conv1, block.conv2, block.conv3)]
        self.windows, self.outputs = [conv.window for conv in self.convs], self.convs[-1].outputs
        self.norms = [scale_of(norm) for norm in (block.norm1, block.norm2, block.norm3)]
        proj = getattr(block, "proj", None)
        self.proj = None if proj is None else packed(proj, dtype)


class FusedPreActivation(FusedBottleneck):
    """shortcut + branch(relu(norm(x))): `(step, into) -> step`."""

    def forward(self, step: Step, into: Tensor | None) -> Step:
        """Add the branch."""
        act = finalize(step.measured(), self.norms[0])
        shortcut = step.x if self.proj is None else convolve(step.x, step.size, self.proj, act, into=into)[0]
        y, size, moments = convolve(step.x, step.size, self.convs[0], act)
        y, size, moments = convolve(y, size, self.convs[1], finalize(moments, self.norms[1]))
        return Step(*convolve(y, size, self.convs[2], finalize(moments, self.norms[2]), add=shortcut, into=into))


class FusedPostActivation(FusedBottleneck):
    """relu(shortcut + norm(branch(x))): `(step, into) -> step`."""

    def __init__(self, block: PostActivationBottleneck | PostActivationEntry, dtype: torch.dtype):
        super().__init__(block, dtype)
        self.proj_norm = scale_of(block.proj_norm) if isinstance(block, PostActivationEntry) else None

    def forward(self, step: Step, into: Tensor | None) -> Step:
        """Add the branch."""
        shortcut, act = step.x, None
        if self.proj is not None and self.proj_norm is not None:
            shortcut, _, moments = convolve(step.x, step.size, self.proj, into=into)
            act = finalize(moments, self.proj_norm)
        y, size, moments = convolve(step.x, step.size, self.convs[0])
        y, size, moments = convolve(y, size, self.convs[1], finalize(moments, self.norms[0]))
        y, size, moments = convolve(y, size, self.convs[2], finalize(moments, self.norms[1]))
        return Step(join(shortcut, act, y, finalize(moments, self.norms[2]), into), size)


_CONV, _RELU = (StdConv2d, SameStdConv2d), (GroupNormReLU,)
_COMMON: Seats = {
    "conv1": _CONV,
    "conv2": _CONV,
    "conv3": _CONV,
    "norm1": _RELU,
    "norm2": _RELU,
    "drop_path": (DropPath,),
}
SEATS: dict[type[nn.Module], Seats] = {
    PreActivationEntry: {**_COMMON, "norm3": _RELU, "proj": _CONV},
    PreActivationBottleneck: {**_COMMON, "norm3": _RELU},
    PostActivationEntry: {**_COMMON, "norm3": (MapGroupNorm,), "proj": _CONV, "proj_norm": (MapGroupNorm,)},
    PostActivationBottleneck: {**_COMMON, "norm3": (MapGroupNorm,)},
}
"""Known parts of a bottleneck of exactly this type."""

BOTTLENECKS: dict[type[nn.Module], Callable[..., FusedBottleneck]] = {
    PreActivationEntry: FusedPreActivation,
    PreActivationBottleneck: FusedPreActivation,
    PostActivationEntry: FusedPostActivation,
    PostActivationBottleneck: FusedPostActivation,
}
"""Fused block of a bottleneck of exactly this type."""


class FusedBottlenecks(nn.Module):
    """A stage of bottlenecks: `(x, grid) -> (x, grid)`.

    The residual stays in one buffer, the result: the last block with a projection writes its shortcut there, and this
    block and those after it add in place. So the map that is read and written by every block stays in the L3.

    Args:
        blocks: fused blocks `(step, into) -> step`, with `windows` that change the size of the map, and `outputs`; with
            `proj` or None, for the shortcut. If `into` is given, the result is written there; it may be the map of
            `step` if the block has no projection.
    """

    def __init__(self, blocks: Sequence[nn.Module]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.strides: list[Window] = [window for block in blocks for window in block.windows]  # pyright: ignore[reportGeneralTypeIssues]
        self.outputs: int = blocks[-1].outputs  # pyright: ignore[reportAttributeAccessIssue]
        projecting = [i for i, block in enumerate(blocks) if block.proj is not None]
        self.in_place = projecting[-1] if projecting else len(blocks) - 1
        """First block that writes to the result."""

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Pass the blocks in order, a few images at a time."""
        assert grid.prefix == 0, grid
        x, after = x.contiguous(), (grid.h, grid.w)
        for window in self.strides:
            after = window.places(after[0])[0], window.places(after[1])[0]
        y = empty(x.shape[0], after[0] * after[1], self.outputs, dtype=x.dtype)
        if len(x) == 0:
            return y, Grid(*after)
        together = max(1, TOGETHER // (y[0].numel() * y.element_size()))
        for part, into in zip(x.split(together), y.split(together), strict=True):
            step = Step(part, (grid.h, grid.w))
            for i, block in enumerate(self.blocks):
                step = block(step, into if i >= self.in_place else None)
        return y, Grid(*after)


def fuse_stage(stage: Stage, dtype: torch.dtype) -> nn.Module:
    """Return the fused stage of bottlenecks, or the stage itself if it has none.

    Raises:
        NotConverted: a block or one of its parts is unknown, or the library cannot be built.
    """
    modules = [stage.entry, *stage.blocks]
    if not any(isinstance(module, Bottleneck) for module in modules):
        return stage
    check_stage(stage, BOTTLENECKS)
    for module in modules:
        check_parts(module, SEATS[type(module)])
    require_libraries("bottleneck")
    return FusedBottlenecks([BOTTLENECKS[type(module)](module, dtype) for module in modules])


def check_stage(stage: Stage, known: Container[type[nn.Module]]) -> None:
    """Check that a stage is entry and blocks of known types, without merging and without hooks.

    Raises:
        NotConverted: it is not.
    """
    unknown = next((type(each).__name__ for each in (stage.entry, *stage.blocks) if type(each) not in known), None)
    if unknown:
        raise NotConverted(f"{unknown} has no fused operation among bottlenecks")
    if stage._modules.keys() != {"entry", "blocks", "exit"} or type(stage.exit) is not NoMerging:
        raise NotConverted(f"its parts are {', '.join(stage._modules)}, its exit is {type(stage.exit).__name__}")
    if has_hooks(stage):
        raise NotConverted("it has hooks or a forward of its own")


def packed(conv: nn.Module, dtype: torch.dtype) -> PackedFilters:
    """Standardise filters and pack them.

    Raises:
        NotConverted: it is no `StdConv2d`, or has too few channels.
    """
    return pack_filters(*filters_of(conv), dtype)


def filters_of(conv: nn.Module) -> tuple[Tensor, Window]:
    """Return the standardised filters of a convolution, and its window.

    Raises:
        NotConverted: it is no `StdConv2d`, or has too few channels.
    """
    if not isinstance(conv, StdConv2d) or type(conv) not in (StdConv2d, SameStdConv2d):
        raise NotConverted(f"{type(conv).__name__} has no fused operation among bottlenecks")
    if conv.out_channels % 16:
        raise NotConverted(f"{conv.out_channels} channels do not fill whole vectors")
    window = Window(conv.kernel_size[0], conv.stride[0], same=isinstance(conv, SameStdConv2d))
    return standardise(conv.weight.detach().float()), window


def scale_of(norm: TokenGroupNorm) -> GroupScale:
    """Read the numbers of a group norm."""
    weight, bias = norm.weight.detach().float().contiguous(), norm.bias.detach().float().contiguous()
    return GroupScale(weight, bias, norm.num_groups, norm.eps)
