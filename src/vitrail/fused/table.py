"""Fused operations of each mixer type: CPU inference in floating point and int8, CUDA inference, training.

To add a mixer, add a row here and its operations.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from vitrail.fused.activated_mlp import ACTIVATIONS
from vitrail.fused.attention import OTHER_MAPS, SEATS, WINDOW_SEATS, attention_unsupported_reason, fuse_attention
from vitrail.fused.class_attention import CLASS_ATTENTION_SEATS, FusedClassAttention
from vitrail.fused.conversion import Conversion, Conversions
from vitrail.fused.cosine_attention import COSINE_SEATS, cosine_unsupported_reason, fuse_cosine_attention
from vitrail.fused.cross_covariance import CROSS_COVARIANCE_SEATS, FusedCrossCovariance
from vitrail.fused.cuda_attention import CudaWindowAttention
from vitrail.fused.depthwise import (
    DEPTHWISE_MLP_SEATS,
    SEPARABLE_SEATS,
    fuse_depthwise_mlp,
    fuse_separable_convolution,
)
from vitrail.fused.experts import EXPERT_PARAMETERS, EXPERT_SEATS, fuse_experts
from vitrail.fused.gated_mlp import (
    GATED_MLP_SEATS,
    NORMED_GATED_MLP_SEATS,
    fuse_gated_mlp,
    gated_mlp_unsupported_reason,
)
from vitrail.fused.int8 import int8_attention, int8_mlp
from vitrail.fused.local_patches import LOCAL_PATCHES_SEATS, FusedLocalPatches
from vitrail.fused.low_rank import with_products
from vitrail.fused.mlp import MLP_SEATS, layers_unsupported_reason, mlp_unsupported_reason
from vitrail.fused.neighborhood import NEIGHBORHOOD_SEATS, fuse_neighborhood
from vitrail.fused.pooling import fuse_channel_mlp, fuse_pooling
from vitrail.fused.retention import RETENTION_SEATS, FusedRetention, retention_unsupported_reason
from vitrail.fused.spatial_reduction import SPATIAL_REDUCTION_SEATS, fuse_spatial_reduction
from vitrail.fused.token_mlp import TOKEN_MLP_SEATS, fuse_token_mlp, token_mlp_unsupported_reason
from vitrail.fused.train_ops import TrainOp, train_attention, train_mlp, train_neighborhood
from vitrail.fused.unsupported import Seats, parts_unsupported_reason
from vitrail.parts.channel_mixers import MLP, GatedMLP, NormedGatedMLP
from vitrail.parts.depthwise_mlp import DepthwiseMLP
from vitrail.parts.mixture_of_experts import MixtureOfExperts
from vitrail.parts.token_mixers.class_attention import ClassAttention
from vitrail.parts.token_mixers.cosine_window_attention import CosineWindowAttention
from vitrail.parts.token_mixers.cross_covariance import CrossCovarianceAttention
from vitrail.parts.token_mixers.local_patch_interaction import LocalPatchInteraction
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention
from vitrail.parts.token_mixers.pooling import Pooling
from vitrail.parts.token_mixers.retention import Retention
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.separable_convolution import SeparableConvolution
from vitrail.parts.token_mixers.spatial_reduction_attention import SpatialReductionAttention
from vitrail.parts.token_mixers.token_mlp import TokenMLP
from vitrail.parts.token_mixers.window_attention import WindowAttention

Limits = Callable[[Any], str | None]
"""Return why a mixer is not computed, or None."""


class MixerOps(NamedTuple):
    """Fused operations of one mixer type.

    Args:
        seats: its children and their types that the operations compute.
        also: further types of its children that the CPU operation computes.
        limits: returns why a mixer with these children is not computed, or None.
        cpu_limits: the same for the CPU operation, if it computes more.
        last: name of its last linear layer, which a LayerScale after it may be folded into.
        cpu: CPU inference, `(norm, mixer, scale, dtype)` to a module `(x, grid) -> x + scale(mixer(norm(x)))`; the
            scale of a residual post-norm block is its LayerNorm.
        int8: the same with int8 GEMMs.
        cuda: CUDA inference, `(mixer, dtype)` to a module `(x, grid) -> mixer(x)`.
        train: training, `(mixer, x, grid, norm, drop_scale) -> x + drop_scale * mixer(norm(x))`.
        any_layout: whether the training operation ignores the layout of the tokens.
        products: whether the CPU operation takes linear layers that are products of two.
        own: names of its own parameters, which the operations read.
    """

    seats: Seats
    also: Seats | None = None
    limits: Limits = lambda mixer: None
    cpu_limits: Limits | None = None
    last: str | None = None
    cpu: Conversion | None = None
    int8: Conversion | None = None
    cuda: Callable[[Any, torch.dtype], nn.Module] | None = None
    train: TrainOp | None = None
    any_layout: bool = False
    products: bool = False
    own: tuple[str, ...] = ()


_INT8_ATTENTION = Conversion(int8_attention, ("int8", "int8_attention", "attention"))

MIXERS: Mapping[type[nn.Module], MixerOps] = {
    SelfAttention: MixerOps(
        SEATS,
        OTHER_MAPS,
        limits=attention_unsupported_reason,
        last="proj",
        cpu=Conversion(fuse_attention, ("attention",)),
        int8=_INT8_ATTENTION,
        train=train_attention,
        products=True,
    ),
    WindowAttention: MixerOps(
        WINDOW_SEATS,
        limits=attention_unsupported_reason,
        last="proj",
        cpu=Conversion(fuse_attention, ("attention",)),
        int8=_INT8_ATTENTION,
        cuda=CudaWindowAttention,
        train=train_attention,
        products=True,
    ),
    CosineWindowAttention: MixerOps(
        COSINE_SEATS,
        limits=cosine_unsupported_reason,
        last="proj",
        cpu=Conversion(fuse_cosine_attention, ("attention",)),
    ),
    CrossCovarianceAttention: MixerOps(
        CROSS_COVARIANCE_SEATS,
        last="proj",
        cpu=Conversion(FusedCrossCovariance, ("cross_covariance",)),
        own=("temperature",),
    ),
    ClassAttention: MixerOps(CLASS_ATTENTION_SEATS, last="proj", cpu=Conversion(FusedClassAttention, ("attention",))),
    LocalPatchInteraction: MixerOps(
        LOCAL_PATCHES_SEATS, cpu=Conversion(FusedLocalPatches, ("depthwise", "layer_norm"))
    ),
    NeighborhoodAttention: MixerOps(
        NEIGHBORHOOD_SEATS,
        limits=attention_unsupported_reason,
        last="proj",
        cpu=Conversion(fuse_neighborhood, ("neighborhood",)),
        train=train_neighborhood,
    ),
    Retention: MixerOps(
        RETENTION_SEATS,
        limits=retention_unsupported_reason,
        last="proj",
        cpu=Conversion(FusedRetention, ("retention",)),
    ),
    Pooling: MixerOps({}, cpu=Conversion(fuse_pooling, ("pooling",))),
    TokenMLP: MixerOps(
        TOKEN_MLP_SEATS, limits=token_mlp_unsupported_reason, cpu=Conversion(fuse_token_mlp, ("token_mlp",))
    ),
    SpatialReductionAttention: MixerOps(
        SPATIAL_REDUCTION_SEATS,
        last="proj",
        cpu=Conversion(fuse_spatial_reduction, ("attention", "convolution", "layer_norm")),
    ),
    SeparableConvolution: MixerOps(
        SEPARABLE_SEATS, last="project", cpu=Conversion(fuse_separable_convolution, ("depthwise",))
    ),
    MixtureOfExperts: MixerOps(EXPERT_SEATS, cpu=Conversion(fuse_experts, ("layer_norm",)), own=EXPERT_PARAMETERS),
    DepthwiseMLP: MixerOps(DEPTHWISE_MLP_SEATS, last="fc2", cpu=Conversion(fuse_depthwise_mlp, ("depthwise",))),
    GatedMLP: MixerOps(
        GATED_MLP_SEATS, limits=gated_mlp_unsupported_reason, last="fc2", cpu=Conversion(fuse_gated_mlp)
    ),
    NormedGatedMLP: MixerOps(
        NORMED_GATED_MLP_SEATS, limits=gated_mlp_unsupported_reason, last="fc2", cpu=Conversion(fuse_gated_mlp)
    ),
    MLP: MixerOps(
        MLP_SEATS,
        ACTIVATIONS,
        limits=mlp_unsupported_reason,
        cpu_limits=layers_unsupported_reason,
        last="fc2",
        cpu=Conversion(fuse_channel_mlp),
        int8=Conversion(int8_mlp, ("int8",)),
        train=train_mlp,
        any_layout=True,
        products=True,
    ),
}
"""The operations of a mixer of exactly this type."""

_NAMES = {"cpu": "fused operation", "int8": "int8 operation", "cuda": "CUDA operation", "train": "training operation"}


def unsupported_reason(mixer: nn.Module, target: str, called: tuple[str, ...] = ()) -> str | None:
    """Return why a mixer has no fused operation, or None.

    Args:
        mixer: token mixer or channel mixer.
        target: column of `MixerOps`: `cpu`, `int8`, `cuda` or `train`.
        called: children that the operation calls as they are, of any type.

    Example:
        >>> unsupported_reason(MLP(4, 8, act=nn.ReLU()), "cpu"), unsupported_reason(Pooling(), "int8")
        ('its act is ReLU', 'Pooling has no int8 operation')
    """
    row = MIXERS.get(type(mixer))
    if row is None or getattr(row, target) is None:
        return f"{type(mixer).__name__} has no {_NAMES[target]}"
    seats = with_products(row.seats) if row.products and target == "cpu" else row.seats
    if target == "cpu":
        seats = {name: (*kinds, *(row.also or {}).get(name, ())) for name, kinds in seats.items()}
    limits = row.cpu_limits if target == "cpu" and row.cpu_limits is not None else row.limits
    return parts_unsupported_reason(mixer, seats, called, row.own) or limits(mixer)


def conversions(target: str) -> Conversions:
    """Return the conversions of a column, `cpu` or `int8`."""
    return {kind: rule for kind, row in MIXERS.items() if (rule := getattr(row, target)) is not None}
