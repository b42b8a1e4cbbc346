"""`vitrail.optimize(model)`: the same model, the same answers, computed as this machine does it best."""

from collections import Counter
from copy import deepcopy
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from vitrail.errors import VitrailError, unknown
from vitrail.fused.blocks import COMPILED, Branches, UnfusedBranch, fuse_block
from vitrail.fused.bottlenecks import FusedBottlenecks
from vitrail.fused.conversion import Conversions, libraries_of
from vitrail.fused.conversions import CONVERSIONS, TOKEN_LAYERS, conversions_for
from vitrail.fused.convolution import FusedTokenizer
from vitrail.fused.cuda import optimize_for_cuda
from vitrail.fused.int8 import INT8, computes_int8
from vitrail.fused.linear import DtypeBoundary, InFp32
from vitrail.fused.optimized_model import DTYPES, OptimizedClassifier, compiled
from vitrail.fused.patches import FusedPatchEmbedding
from vitrail.fused.stems import FusedStem
from vitrail.fused.unsupported import NotConverted, copy_hooks, has_hooks
from vitrail.native.build import built, missing, refusal
from vitrail.native.cpu_features import computes_bf16
from vitrail.native.dtypes import RESIDUAL, as_residual
from vitrail.native.int8 import int8_refusal
from vitrail.parts.backbone import Classifier
from vitrail.parts.blocks import Block

Precision = Literal["auto", "fp32", "bf16", "int8"]

PRECISIONS = ("auto", *DTYPES, "int8")
READING_FP32 = (FusedPatchEmbedding, FusedTokenizer, FusedStem, DtypeBoundary)


class Plan(NamedTuple):
    """How to compute.

    Args:
        precision: what it is called: `fp32`, `bf16` or `int8`.
        dtype: the precision of products; with `int8`, of those that are not of bytes.
        branches: the forms of a branch, the best first.
        forms: those of all else.
    """

    precision: str
    dtype: torch.dtype
    branches: tuple[Branches, ...]
    forms: Conversions = CONVERSIONS

    @classmethod
    def of(cls, precision: str, device: torch.device) -> "Plan":
        """Choose for a device."""
        usual = "bf16" if computes_bf16(device) else "fp32"
        name = usual if precision == "auto" else precision
        return cls(name, DTYPES.get(name, DTYPES[usual]), (INT8, COMPILED) if name == "int8" else (COMPILED,))

    def libraries(self, model: nn.Module) -> list[str]:
        """Name the compiled libraries that a model needs, whatever the machine can do."""
        return libraries_of(model, [CONVERSIONS, *(branches.forms for branches in self.branches)])

    def without_int8(self) -> "Plan":
        """Return the plan for a machine that has no products of bytes."""
        return self._replace(branches=(COMPILED,))


def optimize(model: Classifier, precision: Precision = "auto") -> OptimizedClassifier:
    """Return a model's fast form for inference on this machine, on a CPU or a CUDA device.

    The answers are the same up to rounding. Attention over all tokens, within windows or neighborhoods, pooling, MLPs
    over channels or tokens, patches and convolutions run compiled, with what stands beside them (norm, scale, sum)
    folded in; the rest stays PyTorch, in the same precision. The last norm and the head compute in fp32.
    `optimized.unconverted` says what stayed, and why. Without a C++ compiler everything stays.
    On a GPU see `fused/cuda.py`.

    A form's precision is its own: autocast does not change it. On a CPU it is compiled code that reads memory, so
    `torch.compile` runs it as it is, and `torch.export` and `torch.jit.trace` refuse it: they take the model itself.

    Args:
        model: a classifier on a CPU or a CUDA device; it is not changed. What is a form already is returned as it is.
        precision: of weights and products; `auto` takes bf16 where the processor computes in it, and on a CPU fp16 for
            the sums that blocks hand on, which have as many bytes and three digits more. With `int8` the
            products of attention and MLPs are of bytes, each token in eight bits of its own range, and the rest is as
            with `auto`; nothing has to be calibrated. Pictures and logits are fp32 in any case. But in `fp32`, sums
            between blocks end at 65504: what is larger becomes that, so a picture with huge or infinite numbers may
            get an answer where an fp32 model's is NaN. One with a NaN gets NaN.

    Raises:
        VitrailError: for an unknown precision, for a form in another one than it has, or a model on another device.

    Example:
        >>> import torch, vitrail
        >>> model = vitrail.create_model("vit_tiny_patch16_224", depth=1, num_classes=4).eval()
        >>> fast = vitrail.optimize(model, precision="fp32")
        >>> images = torch.randn(2, 3, 224, 224)
        >>> bool((fast(images) - model(images)).abs().max() < 1e-4)
        True
        >>> vitrail.optimize(fast) is fast
        True
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if isinstance(model, OptimizedClassifier):
        return _again(model, precision)
    device = next(model.parameters()).device
    plan = Plan.of(precision, device)
    if device.type == "cuda" and precision != "int8":
        return optimize_for_cuda(model, plan.dtype)
    if device.type != "cpu":
        raise VitrailError(
            f"The model is on {device}; there is no fast form for it in {precision}. On CUDA devices there are bf16 and"
            " fp32.\nOr move it: model.to('cpu')."
        )
    with torch.autocast("cpu", enabled=False):  # weights are folded in fp32 wherever this is called
        return _optimize_for_cpu(model, plan)


def _again(form: OptimizedClassifier, precision: str) -> OptimizedClassifier:
    """Return a form as it is, unless it is asked for in another precision: it has no weights to make that of."""
    if precision in ("auto", form.precision):
        return form
    raise VitrailError(
        f"This is a fast form in {form.precision} already, and none in {precision} can be made of it.\n"
        "Optimize the model that it was made from."
    )


def _optimize_for_cpu(model: Classifier, plan: Plan) -> OptimizedClassifier:
    fast: Any = compiled(_beside(model)).eval()
    unconverted: Counter[str] = Counter()
    libraries = plan.libraries(model)
    missing(*libraries)  # built at the same time; each form asks for its own again
    reason = refusal(plan.dtype)
    residual = plan.dtype
    if reason is None:
        residual = RESIDUAL[plan.dtype]
        with torch.no_grad():
            _replace(fast, _possible(plan, libraries, unconverted), unconverted)
    else:
        unconverted[f"everything: {reason}"] += 1
    _own(fast, model)
    fast.requires_grad_(False)
    fast.precision, fast.unconverted = plan.precision, dict(unconverted)
    _cast(fast, plan.dtype, residual)
    return fast


def unbuilt(model: nn.Module, precision: Precision) -> int:
    """Return how many compiled libraries `optimize` would have to build first; each takes seconds, once a machine."""
    device = next(model.parameters()).device
    return 0 if device.type != "cpu" else sum(not built(name) for name in Plan.of(precision, device).libraries(model))


def _beside(model: Classifier) -> Classifier:
    """Return a copy of a model that shares the weights of linear layers: they are laid out anew, and copied by that."""
    linear = [module.weight for module in model.modules() if type(module) is nn.Linear]
    return deepcopy(model, {id(weight): weight for weight in linear})


def _own(fast: nn.Module, model: nn.Module) -> None:
    """Copy the weights that are still the model's, so that neither changes the other."""
    theirs, copies = {id(weight) for weight in model.parameters()}, {}
    for module in fast.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if id(weight) in theirs:
                setattr(module, name, deepcopy(weight, copies))


def _possible(plan: Plan, libraries: list[str], unconverted: Counter[str]) -> Plan:
    """Return the plan that this machine can follow, and tell `unconverted` where that is another one."""
    reason = int8_refusal() if "int8" in libraries else None
    if reason is None:
        return plan
    unconverted[f"everything in int8: {reason}"] += 1
    return plan.without_int8()


def _replace(model: Any, plan: Plan, unconverted: Counter[str]) -> None:
    """Put the fast form of each block and layer in its place, and tell what int8 did not reach."""
    _descend(model.backbone, plan._replace(forms=conversions_for(model.preprocess)), unconverted)
    _descend(model.head, plan._replace(dtype=torch.float32), unconverted)
    if INT8 not in plan.branches:
        return
    convolving = sum(isinstance(module, FusedBottlenecks) for module in model.modules())
    if convolving:
        unconverted["stage: convolutions of bottlenecks have no form in int8"] += convolving
    if not computes_int8(model):
        unconverted["everything in int8: no part of this model has a form in it"] += 1


def _descend(parent: nn.Module, plan: Plan, unconverted: Counter[str]) -> None:
    """Replace children; what has no form may hold parts that have."""
    for name, child in parent.named_children():
        form = _form(child, plan, unconverted)
        _descend(form, plan, unconverted)
        narrow = form is child and type(child) in TOKEN_LAYERS and RESIDUAL[plan.dtype] != plan.dtype
        setattr(parent, name, DtypeBoundary(child, plan.dtype) if narrow else form)


def _form(module: nn.Module, plan: Plan, unconverted: Counter[str]) -> nn.Module:
    if type(module) is Block:
        return copy_hooks(fuse_block(module, plan.dtype, unconverted, plan.branches), module)
    if type(module) not in plan.forms:
        return module
    try:
        form = plan.forms[type(module)].of(module, plan.dtype)
        if form is not module and has_hooks(module):
            raise NotConverted("somebody listens to it")
        return form
    except NotConverted as reason:
        unconverted[f"{type(module).__name__}: {reason}"] += 1
        return module


def _cast(fast: Any, dtype: torch.dtype, residual: torch.dtype) -> None:
    """Bring what stayed PyTorch into the precision of products, what is added between blocks into that of the residual.

    The last norm and the head stay in fp32, and pictures come so.
    """
    backbone = fast.float().backbone
    for part in (backbone.embedding, backbone.stages):
        part.to(residual)
        for module in part.modules():
            if isinstance(module, UnfusedBranch | DtypeBoundary):
                module.to(dtype)
    if dtype == torch.float32:
        return
    backbone.norm = InFp32(backbone.norm)
    if not isinstance(backbone.embedding.patches, READING_FP32):
        backbone.embedding.register_forward_pre_hook(lambda module, inputs: as_residual(inputs[0], residual))
