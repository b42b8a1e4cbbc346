"""`vitrail.optimize(model)`: inference with fused modules for this machine."""

from typing import get_args

import torch
from torch import nn

from vitrail.edits.quantize import with_dense_weights
from vitrail.errors import VitrailError, unknown
from vitrail.fused.cpu import optimize_for_cpu
from vitrail.fused.cuda import optimize_for_cuda
from vitrail.fused.decoder import optimize_decoder
from vitrail.fused.encoder import is_encoder, optimize_encoder
from vitrail.fused.optimized_model import OptimizedModel
from vitrail.fused.plan import DTYPES, PRECISIONS, OptimizePlan, Precision
from vitrail.fused.translation import optimize_translation
from vitrail.native.build import built
from vitrail.parts.backbone import Classifier
from vitrail.parts.decoders.segmenter import Segmenter
from vitrail.parts.detection.detector import Detector
from vitrail.parts.encoder_decoder import EncoderDecoder
from vitrail.parts.exported_file import check_layers
from vitrail.parts.model import Model
from vitrail.parts.restorer import Restorer
from vitrail.parts.sequence_model import SequenceModel

__all__ = ["DTYPES", "PRECISIONS", "Precision", "optimize", "unbuilt"]


def optimize(model: Model, precision: Precision = "auto") -> OptimizedModel:
    """Return the optimized copy of a model for inference on this machine, on a CPU or a CUDA device.

    Results are equal up to rounding. Attention over all tokens, within windows or neighborhoods, pooling, MLPs over
    channels or tokens, patch embeddings and convolutions run in native code, with norm, scale and residual sum folded
    in; other modules run in PyTorch, in the same compute dtype. The last norm and the head compute in fp32.
    `optimized.unconverted` counts the modules that are not converted, by reason; without a C++ compiler none is. For
    CUDA see `fused/cuda.py`.

    Of a language model such as GPT-2, a decoding step is one native call (`fused/decoder.py`): give the result to
    `generate`. The same holds for the decoder of a translation model (`fused/translation.py`). Of an encoder of text
    such as BERT, the blocks are native and compute no padding (`fused/encoder.py`).

    Autocast does not change the precision of an optimized model. On a CPU it is native code that reads memory, so
    `torch.compile` runs it as it is, and `torch.export` and `torch.jit.trace` need the original model.

    Args:
        model: classifier on a CPU or a CUDA device, or segmenter, detector, restorer or language model on a CPU; it is
            not changed. An optimized model is returned as it is.
        precision: of weights and GEMMs. `auto` is bf16 if the processor computes in bf16; on a CPU the residual is
            then stored in fp16, which has as many bytes and three more bits of precision. `int8` quantizes the linear
            layers of attention and MLPs, each token in eight bits of its own range, without calibration; the rest is as
            with `auto`. `codebook`, of text decoders: weights of four bits. Images and logits are
            always fp32. Except in `fp32`, the residual of an image model saturates at 65504: an
            image with huge or infinite values may get finite logits instead of NaN. NaN gives NaN.

    Raises:
        VitrailError: unknown precision, an optimized model in another precision, a model on another device, or one of
            another kind.

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
    if isinstance(model, OptimizedModel):
        return _again(model, precision)
    check_layers(model, "its weights are needed to optimize it")
    if isinstance(model, SequenceModel):
        return (optimize_encoder if is_encoder(model) else optimize_decoder)(model, precision)
    if isinstance(model, EncoderDecoder):
        return optimize_translation(model, precision)
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if not isinstance(model, Classifier | Segmenter | Detector | Restorer):
        raise VitrailError(
            f"A {type(model).__name__} has no optimized form: classifiers, segmenters, detectors, image restorers and"
            " decoders of text have one.\n"
            "Use the model as it is."
        )
    dense: Classifier | Segmenter | Detector | Restorer = with_dense_weights(model)
    device = next(dense.parameters()).device
    plan = OptimizePlan.of(precision, device)
    if device.type == "cuda" and precision != "int8" and isinstance(dense, Classifier):
        return optimize_for_cuda(dense, plan.dtype)
    if device.type != "cpu":
        raise VitrailError(
            f"The model is on {device}; it cannot be optimized there in {precision}. CUDA devices compute bf16 and"
            " fp32, of classifiers.\nOr move it: model.to('cpu')."
        )
    with torch.autocast("cpu", enabled=False):  # weights are folded in fp32 wherever this is called
        return optimize_for_cpu(dense, plan)


def _again(form: OptimizedModel, precision: str) -> OptimizedModel:
    """Return an optimized model as it is if the precision fits: it does not hold the weights for another."""
    if precision in ("auto", form.precision):
        return form
    if precision not in get_args(Precision):
        raise unknown("precision", precision, get_args(Precision))
    raise VitrailError(
        f"This model is optimized in {form.precision} already, and cannot be converted to {precision}.\n"
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
