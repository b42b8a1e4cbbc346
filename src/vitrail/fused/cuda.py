"""Optimized models on CUDA: cached attention groups, folded scales, CUDA graphs at small batches."""

from collections import Counter
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.fused.blocks import block_unsupported_reason
from vitrail.fused.cuda_attention import CudaWindowAttention
from vitrail.fused.cuda_graphs import Recorder, Recordings, record
from vitrail.fused.optimized_model import OptimizedClassifier, in_own_precision
from vitrail.fused.plan import DTYPES
from vitrail.fused.table import MIXERS, unsupported_reason
from vitrail.fused.unsupported import copy_hooks, has_hooks
from vitrail.fused.walker import replace_modules
from vitrail.grid import Grid
from vitrail.kernels.add_layer_norm import add_layer_norm
from vitrail.parts.backbone import Classifier, Features
from vitrail.parts.blocks import Block
from vitrail.parts.regularisation import LayerScale
from vitrail.shapes import Image, Tokens


class CudaBlock(nn.Module):
    """Block with the first residual sum and the second norm in one kernel.

    Args:
        block: block to replace; its second norm is a LayerNorm with weight and bias.
    """

    def __init__(self, block: Block):
        super().__init__()
        self.norm1, self.token_mixer, self.scale1 = block.norm1, block.token_mixer, block.scale1
        self.norm2: Any = block.norm2
        self.channel_mixer, self.scale2 = block.channel_mixer, block.scale2

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix tokens, then channels."""
        branch = self.scale1(self.token_mixer(self.norm1(x), grid))
        x, normed = add_layer_norm(x, branch, self.norm2.weight, self.norm2.bias, self.norm2.eps)
        return x + self.scale2(self.channel_mixer(normed, grid))


class CudaGraphClassifier(OptimizedClassifier):
    """Classifier whose calls are CUDA graphs.

    Args:
        model: converted classifier in evaluation mode.
        dtype: compute dtype of the backbone; images, head and logits are fp32.
        recorder: captures a call as a graph.
    """

    def __init__(self, model: Classifier, dtype: torch.dtype, recorder: Recorder = record):
        super().__init__(model.backbone, model.head)
        for name in ("task", "variant", "config", "inputs", "metadata"):
            setattr(self, name, getattr(model, name))
        self.precision = next(name for name, known in DTYPES.items() if known == dtype)
        self.dtype, self.unconverted = dtype, {}
        self.head.float()  # rounding errors of the head are not averaged out
        self.calls = Recordings(self.answer, recorder, self._tables)
        self.eval()

    def forward(self, images: Image) -> Tensor:
        """Return fp32 logits."""
        return in_own_precision("cuda", self.calls, images)

    def answer(self, images: Image) -> Tensor:
        """Compute the logits without a graph."""
        features = self._features(images)
        return self.head(features._replace(tokens=features.tokens.float()))

    def _tables(self) -> list[Any]:
        """Return the cached groups that a graph reads, to keep them alive as long as the graph."""
        return [dict(module.groups.tables) for module in self.modules() if isinstance(module, CudaWindowAttention)]

    def features(self, images: Image) -> Features:
        """Return tokens, grid and pyramid, in the precision of the model."""
        return in_own_precision("cuda", self._features, images)

    def _features(self, images: Image) -> Features:
        return self.backbone(images.to(self.dtype))


def optimize_for_cuda(model: Classifier, dtype: torch.dtype, recorder: Recorder = record) -> CudaGraphClassifier:
    """Return the optimized copy of a classifier on CUDA.

    Attention groups are cached for each grid, LayerScales are folded, the residual sum and the norm after it are one
    kernel, weights of convolutions are channels last, and calls of small batches are captured as CUDA graphs.
    Attention and norms run in Triton if it is installed (`vitrail.kernels`). `optimized.unconverted` counts the
    modules that stay as they are, by reason.

    Args:
        model: classifier; it is not changed.
        dtype: dtype of weights and activations.
        recorder: captures a call as a graph.
    """
    fast: Any = deepcopy(model).eval().requires_grad_(False)
    unconverted: Counter[str] = Counter()
    replace_modules(fast, partial(_convert, dtype=dtype, unconverted=unconverted))
    fast = fast.to(dtype=dtype, memory_format=torch.channels_last)
    recorded = CudaGraphClassifier(fast, dtype, recorder)
    recorded.unconverted = dict(unconverted)
    return recorded


def _convert(module: nn.Module, dtype: torch.dtype, unconverted: Counter[str]) -> nn.Module | None:
    """Convert a block or a window attention."""
    convert = partial(_convert, dtype=dtype, unconverted=unconverted)
    if type(module) is Block:
        reason = block_unsupported_reason(module)
        if reason is None:
            fold_scales(module)
            reason = _norm_unsupported_reason(module.norm2)
        if reason is not None:
            unconverted[f"sum and norm: {reason}"] += 1
            return None
        replace_modules(module, convert)
        return copy_hooks(CudaBlock(module), module)
    row = MIXERS.get(type(module))
    if row is None or row.cuda is None:
        return None
    reason = unsupported_reason(module, "cuda", called=("qkv", "proj"))
    if reason is not None:
        unconverted[f"token mixer: {reason}"] += 1
        return None
    return row.cuda(module, dtype)


def _norm_unsupported_reason(norm: nn.Module) -> str | None:
    if type(norm) is not nn.LayerNorm or norm.bias is None or len(norm.normalized_shape) != 1:
        return f"{type(norm).__name__} is no LayerNorm over channels"
    return "its norm2 has hooks or a forward of its own" if has_hooks(norm) else None


def fold_scales(block: Block) -> None:
    """Fold the LayerScales of a block into the last linear layers of known mixers."""
    for scale, mixer in (("scale1", block.token_mixer), ("scale2", block.channel_mixer)):
        gamma, row = getattr(block, scale, None), MIXERS.get(type(mixer))
        layer = getattr(mixer, row.last, None) if row and row.last else None
        if type(gamma) is not LayerScale or type(layer) is not nn.Linear or has_hooks(gamma, mixer):
            continue
        layer.weight.mul_(gamma.gamma[:, None])
        if layer.bias is not None:
            layer.bias.mul_(gamma.gamma)
        setattr(block, scale, nn.Identity())
