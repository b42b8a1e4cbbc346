"""Axes over heads in the tensors of each mixer: the table of attention that can lose heads.

A head can be removed if it meets the other heads in the output projection only, so that it is a term of a sum. Mixers
without such a projection (their heads are channels of the next layer), and those that mix maps of heads, are not here.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from vitrail.edits.slicing import GroupAxis, find
from vitrail.errors import VitrailError
from vitrail.parts.attend import Attend, NoQKNorm
from vitrail.parts.attention_pooling import AttentionPooling
from vitrail.parts.causal_attend import CausalAttend, DropoutAttend
from vitrail.parts.cosine import CosineNorm
from vitrail.parts.factorized_linear import FactorizedLinear
from vitrail.parts.gated_attention import GatedAttend, RelativeOffsetScores
from vitrail.parts.grid_rotation import GridRotation
from vitrail.parts.latents import CrossLayer
from vitrail.parts.log_spaced_position import LogSpacedPositionBias
from vitrail.parts.positions import NoPosition, RelativePositionBias
from vitrail.parts.query_value_bias import QueryValueBias
from vitrail.parts.sequence_positions import ALiBi, RotaryPosition
from vitrail.parts.token_mixers.causal_attention import CausalAttention
from vitrail.parts.token_mixers.class_attention import ClassAttention
from vitrail.parts.token_mixers.cosine_window_attention import CosineWindowAttention
from vitrail.parts.token_mixers.cross_attention import CrossAttention
from vitrail.parts.token_mixers.cross_covariance import CrossCovarianceAttention
from vitrail.parts.token_mixers.grid_linformer import GridLinformerAttention
from vitrail.parts.token_mixers.linformer import LinformerAttention
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttend, NeighborhoodAttention
from vitrail.parts.token_mixers.performer import PerformerAttention
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.sparse_attention import FixedSparseAttention
from vitrail.parts.token_mixers.spatial_reduction_attention import SpatialReductionAttention
from vitrail.parts.token_mixers.window_attention import WindowAttend, WindowAttention


class HeadLayout(NamedTuple):
    """Parts of a mixer.

    Args:
        projections: linear layers that make the heads, with the number of parts of each.
        own: axes of the mixer's own tensors.
        free: children and tensors that no head has a share of.
    """

    projections: Mapping[str, int]
    own: tuple[GroupAxis, ...] = ()
    free: tuple[str, ...] = ()


_QKV, _Q_KV = {"qkv": 3}, {"q": 1, "kv": 2}

LAYOUTS: Mapping[type[nn.Module], HeadLayout] = {
    SelfAttention: HeadLayout(_QKV),
    CausalAttention: HeadLayout(_QKV),
    WindowAttention: HeadLayout(_QKV),
    CosineWindowAttention: HeadLayout(_QKV),
    NeighborhoodAttention: HeadLayout(_QKV),
    SpatialReductionAttention: HeadLayout(_Q_KV, free=("reduction",)),
    CrossAttention: HeadLayout(_Q_KV),
    ClassAttention: HeadLayout(_Q_KV),
    AttentionPooling: HeadLayout(_Q_KV, free=("latent", "mlp_norm", "mlp")),
    CrossLayer: HeadLayout(_Q_KV, free=("norm1", "norm_array", "norm2", "mlp")),
    CrossCovarianceAttention: HeadLayout(_QKV, own=(GroupAxis("temperature"),)),
    **dict.fromkeys((LinformerAttention, GridLinformerAttention), HeadLayout(_QKV, free=("project_k", "project_v"))),
    PerformerAttention: HeadLayout(_QKV, free=("features",)),
    FixedSparseAttention: HeadLayout(_QKV),
}
"""Mixers of exactly these types can lose heads. All end with a projection `proj` and state `num_heads`."""

AXES: Mapping[type[nn.Module], tuple[GroupAxis, ...]] = {
    RelativePositionBias: (GroupAxis("table", 1),),
    LogSpacedPositionBias: (GroupAxis("mlp.2.weight"),),
    RelativeOffsetScores: (GroupAxis("slope"), GroupAxis("level")),
    ALiBi: (GroupAxis("slopes"),),
    CosineNorm: (GroupAxis("log_scale"),),
    GatedAttend: (GroupAxis("gate"),),
    **dict.fromkeys((NoPosition, RotaryPosition, GridRotation, NoQKNorm), ()),
    **dict.fromkeys((Attend, CausalAttend, DropoutAttend, WindowAttend, NeighborhoodAttend), ()),
}
"""Axes over heads of the parts that may sit in a mixer; of most of them there is none."""

PROJECTIONS: Mapping[type[nn.Module], tuple[tuple[str, bool], ...]] = {
    nn.Linear: (("weight", True), ("bias", True)),
    FactorizedLinear: (("weight", True), ("bias", True)),
    QueryValueBias: (("linear.weight", True), ("q_bias", False), ("v_bias", False)),
}
"""Tensors of a layer that makes heads, and whether they have all of its parts."""


def head_axes(mixer: nn.Module) -> list[GroupAxis]:
    """Return every axis over heads of a mixer.

    Raises:
        VitrailError: it cannot lose heads; the message is the reason.

    Example:
        >>> [axis.path for axis in head_axes(WindowAttention(8, 2, window_size=4))]
        ['qkv.weight', 'qkv.bias', 'proj.weight', 'position.table']
    """
    proj, layout = getattr(mixer, "proj", None), LAYOUTS.get(type(mixer))
    if layout is None:
        raise VitrailError(f"heads of {type(mixer).__name__} are not separate terms of its output")
    if type(proj) not in (nn.Linear, FactorizedLinear):
        raise VitrailError(f"its proj is {type(proj).__name__}")
    axes = [axis for name, parts in layout.projections.items() for axis in _projection_axes(mixer, name, parts)]
    axes += [GroupAxis("proj.weight", 1), *layout.own]
    known = {*layout.projections, "proj", *layout.free, *(axis.path for axis in layout.own)}
    for name, child in mixer.named_children():
        if name not in known:
            if type(child) not in AXES:
                raise VitrailError(f"its {name} is {type(child).__name__}")
            axes += [axis._replace(path=f"{name}.{axis.path}") for axis in AXES[type(child)]]
    loose = [name for name in (*mixer._parameters, *mixer._buffers) if name not in known]
    if loose:
        raise VitrailError(f"unknown part {loose[0]}")
    _check_sizes(mixer, axes)
    return axes


def _projection_axes(mixer: nn.Module, name: str, parts: int) -> list[GroupAxis]:
    layer = getattr(mixer, name)
    if type(layer) not in PROJECTIONS:
        raise VitrailError(f"its {name} is {type(layer).__name__}")
    return [GroupAxis(f"{name}.{path}", 0, parts if whole else 1) for path, whole in PROJECTIONS[type(layer)]]


def _check_sizes(mixer: Any, axes: list[GroupAxis]) -> None:
    """Check that each axis holds whole heads."""
    for axis in axes:
        owner, name = find(mixer, axis.path, axis.axis)
        value = getattr(owner, name)
        if value is not None and value.shape[axis.axis] % (axis.parts * mixer.num_heads):
            raise VitrailError(f"{axis.path} of {tuple(value.shape)} does not hold {mixer.num_heads} heads")


def shared_reason(model: nn.Module, mixer: nn.Module) -> str | None:
    """Return which part of a mixer other modules have too, so that slicing it would change them, or None."""
    parents: dict[int, int] = {}
    for module in model.modules():
        for child in module.children():
            parents[id(child)] = parents.get(id(child), 0) + 1
    name = next((name for name, part in mixer.named_modules() if name and parents.get(id(part), 0) > 1), None)
    return None if name is None else f"its {name} is shared with other modules"
