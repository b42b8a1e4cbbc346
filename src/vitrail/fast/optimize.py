"""`vitrail.optimize(model)`: the same model, the same answers, computed as this machine does it best."""

from collections import Counter
from copy import deepcopy
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from vitrail.errors import VitrailError, unknown
from vitrail.fast.branches import BranchForm, compiled_branch, fast_block
from vitrail.fast.cuda import optimize_for_cuda
from vitrail.fast.forms import FORMS
from vitrail.fast.int8 import int8_branch
from vitrail.fast.kept import Kept
from vitrail.fast.patches import FastPatchEmbedding
from vitrail.native.instructions import computes_bf16
from vitrail.native.int8 import int8_refusal
from vitrail.native.library import refusal
from vitrail.parts.backbone import Classifier
from vitrail.parts.blocks import Block

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
INT8 = "int8"


class Plan(NamedTuple):
    """How to compute: the precision of tokens, and the forms of a branch, the best first."""

    dtype: torch.dtype
    branches: tuple[BranchForm, ...] = (compiled_branch,)


def optimize(model: Classifier, precision: Literal["auto", "fp32", "bf16", "int8"] = "auto") -> Classifier:
    """Return a model's fast form for inference on this machine, on a CPU or a CUDA device.

    The answers are the same up to rounding. Attention over all tokens, within windows or neighborhoods, pooling, MLPs
    over channels or tokens, patches and convolutions run compiled, with what stands beside them (norm, scale, sum)
    folded in; the rest stays PyTorch, in the same precision.
    `optimized.kept` says what stayed, and why. Without a C++ compiler everything stays. On a GPU see `fast/cuda.py`.

    Args:
        model: a classifier on a CPU or a CUDA device; it is not changed.
        precision: of weights and products; `auto` takes bf16 where the processor computes in it. With `int8` the
            products of attention and MLPs are of bytes, each token in eight bits of its own range, and the rest is as
            with `auto`; nothing has to be calibrated. Pictures and logits are fp32 in any case.

    Raises:
        VitrailError: for another precision, or a model on another device.

    Example:
        >>> import torch, vitrail
        >>> model = vitrail.create_model("vit_tiny_patch16_224", depth=1, num_classes=4).eval()
        >>> fast = vitrail.optimize(model, precision="fp32")
        >>> images = torch.randn(2, 3, 224, 224)
        >>> bool((fast(images) - model(images)).abs().max() < 1e-4)
        True
    """
    if precision not in ("auto", *PRECISIONS, INT8):
        raise unknown("precision", precision, ("auto", *PRECISIONS, INT8))
    device = next(model.parameters()).device
    if device.type == "cuda" and precision != INT8:
        return optimize_for_cuda(model, _plan(precision, device, Counter()).dtype)
    if device.type != "cpu":
        raise VitrailError(
            f"The model is on {device}; there is no fast form for it in {precision}. On CUDA devices there are bf16 and"
            " fp32.\nOr move it: model.to('cpu')."
        )
    fast: Any = deepcopy(model).eval().requires_grad_(False)
    kept: Counter[str] = Counter()
    plan = _plan(precision, device, kept)
    missing = refusal(plan.dtype)
    if missing is None:
        _replace(fast, plan, kept)
    else:
        kept[f"everything: {missing}"] += 1
    fast.kept = dict(kept)
    _cast(fast, plan.dtype)
    return fast


def _plan(precision: str, device: torch.device, kept: Counter[str]) -> Plan:
    """Choose how to compute; `kept` is told where int8 cannot be had."""
    if precision in PRECISIONS:
        return Plan(PRECISIONS[precision])
    plan = Plan(PRECISIONS["bf16" if computes_bf16(device) else "fp32"])
    if precision != INT8:
        return plan
    missing = int8_refusal()
    if missing is None:
        return plan._replace(branches=(int8_branch, *plan.branches))
    kept[f"everything in int8: {missing}"] += 1
    return plan


def _replace(parent: nn.Module, plan: Plan, kept: Counter[str]) -> None:
    """Put the fast form of each block and layer in its place; what has none may hold parts that have."""
    for name, child in parent.named_children():
        form = _form(child, plan, kept)
        setattr(parent, name, form)
        _replace(form, plan, kept)


def _form(module: nn.Module, plan: Plan, kept: Counter[str]) -> nn.Module:
    if type(module) is Block:
        return fast_block(module, plan.dtype, kept, plan.branches)
    if type(module) not in FORMS:
        return module
    try:
        return FORMS[type(module)](module, plan.dtype)
    except Kept as reason:
        kept[f"{type(module).__name__}: {reason}"] += 1
        return module


def _cast(fast: Any, dtype: torch.dtype) -> None:
    """Bring what stayed PyTorch into the precision; pictures come and logits go in fp32."""
    if dtype == torch.float32:
        return
    fast.to(dtype)
    if not isinstance(fast.backbone.embedding.patches, FastPatchEmbedding):  # that one reads fp32 itself
        fast.backbone.embedding.register_forward_pre_hook(lambda module, inputs: inputs[0].to(dtype))
    fast.register_forward_hook(lambda module, inputs, logits: logits.float())
