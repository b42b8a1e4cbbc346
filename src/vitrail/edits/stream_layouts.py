"""Axes over the channels of the residual stream in the tensors of each module: the table of what can get narrower.

A residual stream is one set of channels that every branch reads and adds to. A stage that begins with a merging begins
a stream; without one it goes on with that of the stage before.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import nn

from vitrail.edits.head_layouts import LAYOUTS
from vitrail.edits.slicing import GroupAxis, find
from vitrail.errors import VitrailError
from vitrail.parts.backbone import Backbone
from vitrail.parts.blocks import Block, ConvNeXtBlock, PrefixBlock, ResScaleBlock
from vitrail.parts.channel_mixers import MLP, GatedMLP, NormedGatedMLP
from vitrail.parts.conv_pool_merging import ConvPoolMerging
from vitrail.parts.depthwise_mlp import DepthwiseMLP
from vitrail.parts.embeddings import (
    ConvTokenizer,
    Embedding,
    MapPatches,
    NormStep,
    OverlappingPatchEmbedding,
    PatchEmbedding,
    PrefixTokens,
    TokenSteps,
)
from vitrail.parts.factorized_linear import FactorizedLinear
from vitrail.parts.heads import DistilledHead, FirstToken, LinearHead, MeanToken, MLPHead, NormedMean
from vitrail.parts.merging import (
    ConvMerging,
    NoMerging,
    NormedConvMerging,
    PatchMerging,
    PostNormPatchMerging,
    PreNormConvMerging,
)
from vitrail.parts.model import Model
from vitrail.parts.norms import ScaledGroupNorm, TokenGroupNorm
from vitrail.parts.peg import PEG
from vitrail.parts.positions import BilinearPosition, LearnedPosition
from vitrail.parts.query_value_bias import QueryValueBias
from vitrail.parts.regularisation import DropPath, LayerScale
from vitrail.parts.res_post_norm_block import ResPostNormBlock
from vitrail.parts.spatial_reduction import ConvReduction, NoReduction, PooledReduction
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.class_attention import ClassAttention
from vitrail.parts.token_mixers.cosine_window_attention import CosineWindowAttention
from vitrail.parts.token_mixers.cross_covariance import CrossCovarianceAttention
from vitrail.parts.token_mixers.depthwise_convolution import DepthwiseConvolution
from vitrail.parts.token_mixers.grid_linformer import GridLinformerAttention
from vitrail.parts.token_mixers.identity import IdentityMixing
from vitrail.parts.token_mixers.linformer import LinformerAttention
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention
from vitrail.parts.token_mixers.performer import PerformerAttention
from vitrail.parts.token_mixers.pooling import Pooling
from vitrail.parts.token_mixers.random_mixing import RandomMixing
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.separable_convolution import SeparableConvolution
from vitrail.parts.token_mixers.spatial_reduction_attention import SpatialReductionAttention
from vitrail.parts.token_mixers.token_mlp import TokenMLP
from vitrail.parts.token_mixers.window_attention import WindowAttention


def _axes(*paths: str, axis: int = 0, parts: int = 1) -> tuple[GroupAxis, ...]:
    return tuple(GroupAxis(path, axis, parts) for path in paths)


def _layer(reads: str, writes: str) -> tuple[GroupAxis, ...]:
    return (*_axes(f"{reads}.weight", axis=1), *_axes(f"{writes}.weight", f"{writes}.bias"))


_NORM, _NORMED = _axes("weight", "bias"), _axes("norm.weight", "norm.bias")
_CONV = _axes("conv.weight", "conv.bias")

AXES: Mapping[type[nn.Module], tuple[GroupAxis, ...]] = {
    **dict.fromkeys((nn.LayerNorm, TokenGroupNorm, ScaledGroupNorm), _NORM),
    LayerScale: _axes("gamma"),
    **dict.fromkeys((MLP, GatedMLP, NormedGatedMLP, DepthwiseMLP), _layer("fc1", "fc2")),
    **dict.fromkeys((DepthwiseConvolution, PEG), _CONV),
    SeparableConvolution: _layer("expand", "project"),
    **dict.fromkeys((PatchEmbedding, OverlappingPatchEmbedding), _axes("proj.weight", "proj.bias")),
    ConvTokenizer: _axes("proj.1.weight", "proj.1.bias"),
    PrefixTokens: _axes("tokens", axis=2),
    **dict.fromkeys((LearnedPosition, BilinearPosition), _axes("table", axis=2)),
    **dict.fromkeys((Pooling, IdentityMixing, RandomMixing, TokenMLP), ()),
    **dict.fromkeys((ConvReduction, PooledReduction), (*_axes("conv.weight", axis=1), *_CONV, *_NORMED)),
    LinearHead: _axes("linear.weight", axis=1),
    DistilledHead: _axes("linear.weight", "distillation.weight", axis=1),
    MLPHead: _axes("hidden.0.weight", axis=1),
}
"""Axes of modules of exactly these types, children that `INSIDE` does not name aside."""

MIXERS = (
    SelfAttention,
    WindowAttention,
    CosineWindowAttention,
    NeighborhoodAttention,
    ClassAttention,
    CrossCovarianceAttention,
    LinformerAttention,
    GridLinformerAttention,
    PerformerAttention,
    SpatialReductionAttention,
)
"""Attention whose projections read the stream and whose `proj` adds to it; positions and leaves see heads alone."""

CONTAINERS = (Block, PrefixBlock, ResScaleBlock, ResPostNormBlock, ConvNeXtBlock, Embedding, TokenSteps, NormStep)
NEUTRAL = (nn.Identity, nn.Dropout, DropPath, NoMerging, FirstToken, MeanToken, NoReduction)
NORMS = (nn.LayerNorm, TokenGroupNorm, ScaledGroupNorm)

INSIDE: Mapping[type[nn.Module], tuple[str, ...]] = {
    PatchEmbedding: ("norm",),
    ConvTokenizer: ("norm",),
    LinearHead: ("pool",),
    MLPHead: ("pool",),
    NormedMean: ("mean", "norm"),
    SpatialReductionAttention: ("reduction",),
}
"""Children that are on the stream too."""


class MergingLayout(NamedTuple):
    """Axes of a merging on the stream before it and on the stream that it begins."""

    before: tuple[GroupAxis, ...]
    after: tuple[GroupAxis, ...]


_READS, _WRITES = _axes("reduction.weight", axis=1), _axes("reduction.weight", "reduction.bias")
_FOUR = _axes("reduction.weight", axis=1, parts=4)

MERGINGS: Mapping[type[nn.Module], MergingLayout] = {
    PatchMerging: MergingLayout((*_axes("norm.weight", "norm.bias", parts=4), *_FOUR), _WRITES),
    PostNormPatchMerging: MergingLayout(_FOUR, (*_WRITES, *_NORMED)),
    ConvMerging: MergingLayout(_READS, _WRITES),
    NormedConvMerging: MergingLayout(_READS, (*_WRITES, *_NORMED)),
    PreNormConvMerging: MergingLayout((*_NORMED, *_READS), _WRITES),
    ConvPoolMerging: MergingLayout(_axes("conv.weight", axis=1), (*_CONV, *_NORMED)),
    MapPatches: MergingLayout(
        _axes("patches.proj.weight", axis=1),
        _axes("patches.proj.weight", "patches.proj.bias", "patches.norm.weight", "patches.norm.bias"),
    ),
}
LAYERS = (nn.Linear, FactorizedLinear, QueryValueBias, nn.Conv2d)
"""Layers that can lose inputs and outputs."""


@dataclass
class Stream:
    """Axes of one residual stream.

    Args:
        width: number of channels.
        axes: every axis over them, names from the model.
        norms: by name of a linear layer that reads the stream, the norm before it; None without one.
    """

    width: int = 0
    axes: list[GroupAxis] = field(default_factory=list)
    norms: dict[str, str | None] = field(default_factory=dict)


def streams(model: Model) -> dict[str, Stream]:
    """Return the residual streams of a classifier, by name of the stage that begins each.

    Raises:
        VitrailError: some module of the model is not in the table; the message names it.

    Example:
        >>> from vitrail.models import create_model
        >>> [stream.width for stream in streams(create_model("swin_tiny_patch4_window7_224")).values()]
        [96, 192, 384, 768]
    """
    backbone = getattr(model, "backbone", None)
    if type(backbone) is not Backbone or not all(type(stage) is Stage for stage in backbone.stages):
        raise VitrailError(f"{type(backbone).__name__} is no backbone of stages with one residual stream each")
    found, current = {"backbone.stages.0": Stream()}, "backbone.stages.0"
    _follow("backbone.embedding", backbone.embedding, found[current])
    stages: list[Any] = list(backbone.stages)
    for number, stage in enumerate(stages):
        name = f"backbone.stages.{number}"
        for place, step in _steps(f"{name}.entry", stage.entry):
            if type(step) in MERGINGS:
                _merge(place, step, found[current], found.setdefault(name, Stream()))
                current = name
            else:
                _follow(place, step, found[current])
        for index, block in enumerate(stage.blocks):
            _follow(f"{name}.blocks.{index}", block, found[current])
        _follow(f"{name}.exit", stage.exit, found[current])
    _follow("backbone.norm", backbone.norm, found[current])
    _follow("head", model.head, found[current])
    for stream in found.values():
        stream.axes = _existing(model, stream)
    return found


def _steps(name: str, entry: nn.Module) -> list[tuple[str, nn.Module]]:
    if type(entry) is TokenSteps:
        return [(f"{name}.{child}", part) for child, part in entry.named_children()]
    return [(name, entry)]


def _follow(name: str, module: Any, stream: Stream, norm: str | None = None) -> None:
    """Add the axes of a module that reads and writes one stream."""
    kind = type(module)
    if kind in CONTAINERS:
        for child, part in module.named_children():
            _follow(f"{name}.{child}", part, stream, _norm_before(name, module, child))
        return
    if kind in NEUTRAL:
        return
    if kind in MIXERS:
        stream.axes += _mixer_axes(name, module)
        for projection in LAYOUTS[kind].projections:
            stream.norms[f"{name}.{projection}"] = norm
    elif kind in AXES or kind in INSIDE:
        stream.axes += [axis._replace(path=f"{name}.{axis.path}") for axis in AXES.get(kind, ())]
        reads = [axis.path.removesuffix(".weight") for axis in AXES.get(kind, ()) if axis.axis == 1]
        stream.norms |= {f"{name}.{path}": norm for path in reads}
    else:
        raise VitrailError(f"{kind.__name__} ({name}) is not known to keep the channels of the residual stream apart")
    for child in INSIDE.get(kind, ()):
        _follow(f"{name}.{child}", getattr(module, child), stream)


def _norm_before(name: str, block: Any, child: str) -> str | None:
    if type(block) is ConvNeXtBlock:
        return f"{name}.norm" if child == "channel_mixer" else None
    seats = {"token_mixer": "norm1", "channel_mixer": "norm2"}
    return f"{name}.{seats[child]}" if child in seats and type(block) is not ResPostNormBlock else None


def _mixer_axes(name: str, mixer: nn.Module) -> Iterator[GroupAxis]:
    for projection in LAYOUTS[type(mixer)].projections:
        layer = getattr(mixer, projection)
        inner = "linear.weight" if type(layer) is QueryValueBias else "weight"
        yield GroupAxis(f"{name}.{projection}.{inner}", 1)
    yield from _axes(f"{name}.proj.weight", f"{name}.proj.bias")


def _merge(name: str, merging: nn.Module, before: Stream, after: Stream) -> None:
    layout = MERGINGS[type(merging)]
    before.axes += [axis._replace(path=f"{name}.{axis.path}") for axis in layout.before]
    after.axes += [axis._replace(path=f"{name}.{axis.path}") for axis in layout.after]
    normed = any(axis.path == "norm.weight" for axis in layout.before)
    if hasattr(merging, "reduction"):
        before.norms[f"{name}.reduction"] = f"{name}.norm" if normed else None


def _existing(model: nn.Module, stream: Stream) -> list[GroupAxis]:
    """Return the axes whose tensors exist, and check the sizes of all."""
    known = []
    for axis in stream.axes:
        place, _, last = axis.path.rpartition(".")
        if type(model.get_submodule(place)) is nn.Identity:  # a head without classes
            continue
        owner, last = find(model, axis.path, axis.axis)
        value = getattr(owner, last)
        if value is None:
            continue
        if last in ("weight", "bias") and type(owner) not in (*LAYERS, *NORMS):
            raise VitrailError(f"{place} is {type(owner).__name__}")
        if isinstance(owner, nn.GroupNorm) and owner.num_groups > 1:
            raise VitrailError(f"{place} normalises {owner.num_groups} groups of channels")
        stream.width = stream.width or value.shape[axis.axis] // axis.parts
        assert value.shape[axis.axis] == axis.parts * stream.width, (axis, value.shape)
        known.append(axis)
    _check_unshared(model, known)
    return known


def _check_unshared(model: nn.Module, axes: list[GroupAxis]) -> None:
    owners: dict[int, int] = {}
    for part in model.modules():
        for value in part._parameters.values():
            owners[id(value)] = owners.get(id(value), 0) + 1
    for axis in axes:
        owner, last = find(model, axis.path, axis.axis)
        if owners.get(id(getattr(owner, last)), 1) > 1:
            raise VitrailError(f"{axis.path} is shared with another module")
