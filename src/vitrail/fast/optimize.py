"""`vitrail.optimize(model)`: the same model, the same answers, computed as this machine does it best."""

from collections import Counter
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import nn

from vitrail.errors import VitrailError, unknown
from vitrail.fast.branches import fast_block
from vitrail.fast.forms import FORMS
from vitrail.fast.kept import Kept
from vitrail.native.instructions import computes_bf16
from vitrail.native.library import refusal
from vitrail.parts.backbone import Classifier
from vitrail.parts.blocks import Block

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def optimize(model: Classifier, precision: Literal["auto", "fp32", "bf16"] = "auto") -> Classifier:
    """Return a model's fast form for inference on this machine's CPU.

    The answers are the same up to rounding. Attention over all tokens and within windows, MLPs and linear layers run
    compiled, with what stands beside them (norm, scale, sum) folded in; the rest stays PyTorch, in the same precision.
    `optimized.kept` says what stayed, and why. Without a C++ compiler everything stays.

    Args:
        model: a classifier on a CPU; it is not changed.
        precision: of weights and products; `auto` takes bf16 where the processor computes in it. Pictures and logits
            are fp32 either way.

    Raises:
        VitrailError: for another precision, or a model that is not on a CPU.

    Example:
        >>> import torch, vitrail
        >>> model = vitrail.create_model("vit_tiny_patch16_224", depth=1, num_classes=4).eval()
        >>> fast = vitrail.optimize(model, precision="fp32")
        >>> images = torch.randn(2, 3, 224, 224)
        >>> bool((fast(images) - model(images)).abs().max() < 1e-4)
        True
    """
    if precision != "auto" and precision not in PRECISIONS:
        raise unknown("precision", precision, ("auto", *PRECISIONS))
    device = next(model.parameters()).device
    if device.type != "cpu":
        raise VitrailError(f"The model is on {device}; its fast form is for CPUs. Move it: model.to('cpu').")
    if precision == "auto":
        precision = "bf16" if computes_bf16(device) else "fp32"
    dtype = PRECISIONS[precision]
    fast: Any = deepcopy(model).eval().requires_grad_(False)
    kept: Counter[str] = Counter()
    missing = refusal(dtype)
    if missing is None:
        _replace(fast, dtype, kept)
    else:
        kept[f"everything: {missing}"] += 1
    fast.kept = dict(kept)
    _cast(fast, dtype)
    return fast


def _replace(parent: nn.Module, dtype: torch.dtype, kept: Counter[str]) -> None:
    """Put the fast form of each block and layer in its place; what has none may hold parts that have."""
    for name, child in parent.named_children():
        form = _form(child, dtype, kept)
        setattr(parent, name, form)
        _replace(form, dtype, kept)


def _form(module: nn.Module, dtype: torch.dtype, kept: Counter[str]) -> nn.Module:
    if type(module) is Block:
        return fast_block(module, dtype, kept)
    if type(module) not in FORMS:
        return module
    try:
        return FORMS[type(module)](module, dtype)
    except Kept as reason:
        kept[f"{type(module).__name__}: {reason}"] += 1
        return module


def _cast(fast: Any, dtype: torch.dtype) -> None:
    """Bring what stayed PyTorch into the precision; pictures come and logits go in fp32."""
    if dtype == torch.float32:
        return
    fast.to(dtype)
    fast.backbone.embedding.register_forward_pre_hook(lambda module, inputs: inputs[0].to(dtype))
    fast.register_forward_hook(lambda module, inputs, logits: logits.float())
