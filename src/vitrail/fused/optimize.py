"""`vitrail.optimize(model)`: inference with fused modules for this machine."""

import torch
from torch import nn

from vitrail.errors import VitrailError, unknown
from vitrail.fused.cpu import optimize_for_cpu
from vitrail.fused.cuda import optimize_for_cuda
from vitrail.fused.optimized_model import OptimizedClassifier
from vitrail.fused.plan import DTYPES, PRECISIONS, OptimizePlan, Precision
from vitrail.native.build import built
from vitrail.parts.backbone import Classifier

__all__ = ["DTYPES", "PRECISIONS", "Precision", "optimize", "unbuilt"]


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
    plan = OptimizePlan.of(precision, device)
    if device.type == "cuda" and precision != "int8":
        return optimize_for_cuda(model, plan.dtype)
    if device.type != "cpu":
        raise VitrailError(
            f"The model is on {device}; there is no fast form for it in {precision}. On CUDA devices there are bf16 and"
            " fp32.\nOr move it: model.to('cpu')."
        )
    with torch.autocast("cpu", enabled=False):  # weights are folded in fp32 wherever this is called
        return optimize_for_cpu(model, plan)


def _again(form: OptimizedClassifier, precision: str) -> OptimizedClassifier:
    """Return a form as it is, unless it is asked for in another precision: it has no weights to make that of."""
    if precision in ("auto", form.precision):
        return form
    raise VitrailError(
        f"This is a fast form in {form.precision} already, and none in {precision} can be made of it.\n"
        "Optimize the model that it was made from."
    )


def unbuilt(model: nn.Module, precision: Precision) -> int:
    """Return how many compiled libraries `optimize` would have to build first; each takes seconds, once a machine."""
    device = next(model.parameters()).device
    return (
        0
        if device.type != "cpu"
        else sum(not built(name) for name in OptimizePlan.of(precision, device).libraries(model))
    )
