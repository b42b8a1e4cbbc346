"""Precision and fused operations of an optimized model."""

from typing import Literal, NamedTuple

import torch
from torch import nn

from vitrail.fused.conversion import libraries_of
from vitrail.fused.conversions import CONVERSIONS
from vitrail.fused.table import conversions
from vitrail.native.cpu_features import computes_bf16
from vitrail.parts.decoders.segmenter import Segmenter
from vitrail.parts.detection.detector import Detector
from vitrail.parts.head_mixing import HeadMixingAttend
from vitrail.parts.restorer import Restorer
from vitrail.parts.sequence_norms import RMSNorm
from vitrail.parts.stream_norm_block import StreamNormBlock
from vitrail.parts.token_mixers.bottleneck_attention import BottleneckAttention
from vitrail.parts.token_mixers.halo_attention import HaloAttention, StandAloneAttention
from vitrail.parts.visual_words import InnerOuterBlock
from vitrail.parts.xcit_blocks import ClassBlock, PrefixNormClassBlock

Precision = Literal["auto", "fp32", "bf16", "int8", "codebook"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Compute dtype of a precision; `int8` computes all but its int8 GEMMs as `auto` does."""

PRECISIONS = ("auto", *DTYPES, "int8")

PLAIN_LIBRARIES: dict[type[nn.Module], tuple[str, ...]] = {
    HeadMixingAttend: ("mixed_attention",),
    RMSNorm: ("layer_norm",),
    StandAloneAttention: ("local_attention",),
    BottleneckAttention: ("attention",),
    HaloAttention: ("attention",),
    StreamNormBlock: ("layer_norm",),
    ClassBlock: ("layer_norm",),
    InnerOuterBlock: ("layer_norm",),
    PrefixNormClassBlock: ("layer_norm",),
    Segmenter: ("winograd",),
    Detector: ("winograd",),
    Restorer: ("winograd",),
}
"""Native libraries of modules without a row in the tables: blocks, mixers with a kernel, convolutions of maps."""


def usual_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """Return the precision of `auto` on a device: bf16 if it has such arithmetic, else fp32.

    Example:
        >>> usual_precision(torch.device("meta"))
        'fp32'
    """
    return "bf16" if computes_bf16(device) else "fp32"


class OptimizePlan(NamedTuple):
    """How a model is optimized.

    Args:
        precision: `fp32`, `bf16` or `int8`.
        dtype: compute dtype; with `int8`, that of everything but the int8 GEMMs.
        targets: columns of `MIXERS` to look for an operation in, best first.
    """

    precision: str
    dtype: torch.dtype
    targets: tuple[str, ...]

    @classmethod
    def of(cls, precision: str, device: torch.device) -> "OptimizePlan":
        """Choose for a device."""
        usual = usual_precision(device)
        name = usual if precision == "auto" else precision
        return cls(name, DTYPES.get(name, DTYPES[usual]), ("int8", "cpu") if name == "int8" else ("cpu",))

    def libraries(self, model: nn.Module) -> list[str]:
        """Return the native libraries that a model needs, whether or not this machine can run them."""
        fused = libraries_of(model, [CONVERSIONS, *map(conversions, self.targets)])
        plain = {name for module in model.modules() for name in PLAIN_LIBRARIES.get(type(module), ())}
        return [*fused, *sorted(plain - set(fused))]

    def without_int8(self) -> "OptimizePlan":
        """Return the plan for a machine without int8 GEMMs."""
        return self._replace(targets=("cpu",))
