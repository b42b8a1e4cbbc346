"""Optimized models on a CPU: fused blocks and layers; other modules run in PyTorch, in the compute dtype."""

from collections import Counter
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from vitrail.fused.blocks import UnfusedBranch, fuse_block, fuse_post_norm_block, fuse_stream_norm_block
from vitrail.fused.bottlenecks import FusedBottlenecks
from vitrail.fused.class_blocks import fuse_class_block, fuse_prefix_block
from vitrail.fused.color_tokens import FusedColorTokens
from vitrail.fused.conversion import Conversions
from vitrail.fused.conversions import CONVERSIONS, conversions_for
from vitrail.fused.convolution import FusedTokenizer
from vitrail.fused.dense_head import fuse_maps, read_in_fp32
from vitrail.fused.inner_outer import fuse_inner_outer_block
from vitrail.fused.int8 import computes_int8
from vitrail.fused.linear import DtypeBoundary, InFp32
from vitrail.fused.local_block import fuse_local_block
from vitrail.fused.map_convolution import FusedConv3x3, FusedResidualStage
from vitrail.fused.optimized_model import OptimizedModel, compiled
from vitrail.fused.patches import FusedPatchEmbedding
from vitrail.fused.plan import OptimizePlan
from vitrail.fused.reducing import fuse_reducing_block
from vitrail.fused.res_scale import fuse_res_scale_block
from vitrail.fused.stems import FusedConvStem, FusedStem
from vitrail.fused.unsupported import NotConverted, copy_hooks
from vitrail.fused.walker import replace_modules
from vitrail.native.build import missing, refusal
from vitrail.native.casts import as_residual
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.int8 import int8_refusal
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block, PrefixBlock, ResScaleBlock
from vitrail.parts.decoders.segmenter import Segmenter
from vitrail.parts.detection.detector import Detector
from vitrail.parts.dynamic_tokens import DynamicStage, MaskableBlock
from vitrail.parts.embeddings import Embedding, PrefixTokens, TokenSteps
from vitrail.parts.input_arrays import FourierPixels
from vitrail.parts.latents import IterativeBackbone, LatentEmbedding, RepeatedStage, RereadingStage
from vitrail.parts.merging import NoMerging
from vitrail.parts.model import ImageModel, Model
from vitrail.parts.positions import LearnedPosition
from vitrail.parts.res_post_norm_block import ResPostNormBlock
from vitrail.parts.restorer import Restorer
from vitrail.parts.stages import Stage
from vitrail.parts.stream_norm_block import StreamNormBlock
from vitrail.parts.token_reduction import ReducingBlock, ReducingStage
from vitrail.parts.visual_words import InnerOuterBlock
from vitrail.parts.xcit_blocks import ClassBlock, LocalBlock, PrefixNormClassBlock

READS_FP32 = (FusedPatchEmbedding, FusedTokenizer, FusedStem, FusedConvStem, FusedColorTokens, DtypeBoundary)

ON_RESIDUAL = (
    *(Embedding, TokenSteps, Stage, nn.ModuleList, NoMerging, PrefixTokens, LearnedPosition),
    *(ReducingStage, DynamicStage, nn.ModuleDict),
    *(LatentEmbedding, FourierPixels, RepeatedStage, RereadingStage),
    *(FusedResidualStage, FusedConv3x3),
)
"""Modules that pass the residual on or add to it: unconverted, they compute in its dtype."""

BLOCKS: Mapping[type[nn.Module], Callable[..., nn.Module]] = {
    Block: fuse_block,
    MaskableBlock: fuse_block,
    ResScaleBlock: fuse_res_scale_block,
    ResPostNormBlock: fuse_post_norm_block,
    StreamNormBlock: fuse_stream_norm_block,
    LocalBlock: fuse_local_block,
    InnerOuterBlock: fuse_inner_outer_block,
    PrefixBlock: fuse_prefix_block,
    ClassBlock: fuse_class_block,
    PrefixNormClassBlock: fuse_class_block,
    ReducingBlock: fuse_reducing_block,
}
"""Conversion of each block of two branches; in evaluation a maskable block is a plain one."""


def optimize_for_cpu(model: Classifier | Segmenter | Detector | Restorer, plan: OptimizePlan) -> OptimizedModel:
    """Return the optimized copy of a model on a CPU; `unconverted` counts the reasons for PyTorch."""
    fast: Any = compiled(_copy_sharing_linear(model)).eval()
    unconverted: Counter[str] = Counter()
    libraries = plan.libraries(model)
    missing(*libraries)  # builds them in parallel; each conversion requires its own again
    reason = refusal(plan.dtype) or _backbone_unsupported_reason(model.backbone)
    if reason is None:
        with torch.no_grad():
            fuse_maps(fast, plan.dtype, unconverted)
            _convert(fast, _possible(plan, libraries, unconverted), unconverted)
    else:
        unconverted[f"everything: {reason}"] += 1
    read_in_fp32(fast.head)
    _copy_shared(fast, model)
    fast.requires_grad_(False)
    fast.precision, fast.unconverted = plan.precision, dict(unconverted)
    if _backbone_unsupported_reason(model.backbone) is None:
        _cast(fast, plan.dtype, plan.dtype if reason else RESIDUAL[plan.dtype])
    else:
        fast.precision = "fp32"
    return fast


def _backbone_unsupported_reason(backbone: nn.Module) -> str | None:
    """Return why the parts of a backbone cannot be replaced."""
    if isinstance(backbone, IterativeBackbone):
        kinds = type(backbone.embedding), type(backbone.stages[0])
        if kinds != (LatentEmbedding, RereadingStage):  # called by other methods than forward
            return f"IterativeBackbone with {kinds[0].__name__} and {kinds[1].__name__}"
    return None if isinstance(backbone, Backbone) else f"{type(backbone).__name__} is no Backbone"


def _copy_sharing_linear(model: Model) -> Any:
    """Return a copy that shares the weights of linear layers: packing copies them."""
    linear = [module.weight for module in model.modules() if type(module) is nn.Linear]
    return deepcopy(model, {id(weight): weight for weight in linear})


def _copy_shared(fast: nn.Module, model: nn.Module) -> None:
    """Copy the weights that are still shared, so that changing one model does not change the other."""
    shared, copies = {id(weight) for weight in model.parameters()}, {}
    for module in fast.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if id(weight) in shared:
                setattr(module, name, deepcopy(weight, copies))


def _possible(plan: OptimizePlan, libraries: list[str], unconverted: Counter[str]) -> OptimizePlan:
    """Return the plan that this machine can run; note in `unconverted` if it is another one."""
    reason = int8_refusal() if "int8" in libraries else None
    if reason is None:
        return plan
    unconverted[f"everything in int8: {reason}"] += 1
    return plan.without_int8()


def _convert(model: Model, plan: OptimizePlan, unconverted: Counter[str]) -> None:
    """Replace blocks and layers by fused ones."""
    body = _Converter(plan, _layer_conversions(model), unconverted)
    for part in ("embedding", "stages"):
        holder = nn.ModuleList([getattr(model.backbone, part)])
        replace_modules(holder, body.convert)
        setattr(model.backbone, part, holder[0])
    head = _Converter(plan._replace(dtype=torch.float32), CONVERSIONS, unconverted)
    replace_modules(model.head, head.convert_inner)
    if "int8" not in plan.targets:
        return
    convolving = sum(isinstance(module, FusedBottlenecks) for module in model.modules())
    if convolving:
        unconverted["stage: convolutions of bottlenecks have no int8 operation"] += convolving
    if not computes_int8(model):
        unconverted["everything in int8: no part of this model has an int8 operation"] += 1


def _layer_conversions(model: Model) -> Conversions:
    """Return the conversions of layers; those of a classifier fold the normalisation of its images in."""
    return conversions_for(model.preprocess) if isinstance(model, ImageModel) else CONVERSIONS


class _Converter:
    """Converts modules for `replace_modules`.

    Args:
        plan: compute dtype and operations.
        conversions: those of layers.
        unconverted: counts the modules that are not converted, by reason.
    """

    def __init__(self, plan: OptimizePlan, conversions: Conversions, unconverted: Counter[str]):
        self.plan, self.conversions, self.unconverted = plan, conversions, unconverted

    def convert(self, module: nn.Module) -> nn.Module | None:
        """Convert a module that is called with the residual; an unknown one is called in the compute dtype."""
        reported = self.unconverted.total()
        new = self._fuse(module) if self._known(module) else None
        if new is not None:
            return new
        if type(module) in ON_RESIDUAL:
            return None
        if self.unconverted.total() == reported:
            self.unconverted[f"{type(module).__name__} has no fused operation"] += 1
        mixer = dict(module.named_children()).get("token_mixer")
        if mixer is not None:
            self.unconverted[f"token mixer {type(mixer).__name__}: its block has no fused operation"] += 1
        replace_modules(module, self.convert_inner)
        dtype = self.plan.dtype
        return module if RESIDUAL[dtype] == dtype else DtypeBoundary(module, dtype)

    def convert_inner(self, module: nn.Module) -> nn.Module | None:
        """Convert a module inside an unknown one, where tensors are in the compute dtype."""
        return self._fuse(module) if type(module) in (*BLOCKS, nn.Linear) else None

    def _known(self, module: nn.Module) -> bool:
        return type(module) in BLOCKS or type(module) in self.conversions

    def _fuse(self, module: nn.Module) -> nn.Module | None:
        try:
            fuse = BLOCKS.get(type(module))
            if fuse is None:
                new = self.conversions[type(module)].of(module, self.plan.dtype)
                return None if new is module else self._with_called(new)
            fused = fuse(module, self.plan.dtype, self.unconverted, self.plan.targets)
        except NotConverted as reason:
            self.unconverted[f"{type(module).__name__}: {reason}"] += 1
            return None
        replace_modules(fused, self.convert_inner)
        return copy_hooks(fused, module)

    def _with_called(self, fused: nn.Module) -> nn.Module:
        """Convert the layers of modules that a fused stage calls, and count the modules."""
        for called in [part for part in fused.modules() if type(part) is DtypeBoundary]:
            self.unconverted[f"{type(called.module).__name__} has no fused operation"] += 1
            replace_modules(called, self.convert_inner)
        return fused


def _cast(fast: Any, dtype: torch.dtype, residual: torch.dtype) -> None:
    """Cast unconverted modules to the compute dtype, and tensors added to the residual to its dtype.

    The last norm and the head stay in fp32, and images come in fp32.
    """
    backbone = fast.float().backbone
    for part in (backbone.embedding, backbone.stages):
        _cast_part(part, dtype, residual)
    if dtype == torch.float32:
        return
    backbone.norm = InFp32(backbone.norm)
    if not isinstance(getattr(backbone.embedding, "patches", backbone.embedding), READS_FP32):
        backbone.embedding.register_forward_pre_hook(lambda module, inputs: as_residual(inputs[0], residual))


def _cast_part(module: nn.Module, dtype: torch.dtype, residual: torch.dtype) -> None:
    if isinstance(module, UnfusedBranch | DtypeBoundary):
        module.to(dtype)
        return
    module._apply(lambda x: x.to(residual) if x.is_floating_point() else x, recurse=False)
    for child in module.children():
        _cast_part(child, dtype, residual)
