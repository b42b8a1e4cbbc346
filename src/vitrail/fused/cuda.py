"""A model's fast form on a GPU: tables made once, scales folded, and recorded calls at small batches."""

from collections import Counter
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.fused.cuda_attention import CudaWindowAttention
from vitrail.fused.cuda_graphs import Recordings, record
from vitrail.fused.optimized_model import DTYPES, OptimizedClassifier, in_own_precision
from vitrail.grid import Grid
from vitrail.kernels.add_layer_norm import add_layer_norm
from vitrail.parts.backbone import Classifier, Features
from vitrail.parts.blocks import Block
from vitrail.parts.positions import NoPosition
from vitrail.parts.regularisation import LayerScale
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.shapes import Image, Tokens


class CudaBlock(nn.Module):
    """A block in which the sum after the first branch and the norm before the second are one pass.

    Args:
        block: what to compute, its second norm a LayerNorm with scale and shift.
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
    """A classifier whose calls are recorded and replayed.

    Args:
        model: what to compute, in evaluation mode.
        dtype: what it computes in, all but the head; pictures and logits are fp32.
        recorder: makes a replay of a call.
    """

    def __init__(self, model: Classifier, dtype: torch.dtype, recorder: Any = record):
        super().__init__(model.backbone, model.head)
        for name in ("variant", "config", "labels", "preprocess"):
            setattr(self, name, getattr(model, name))
        self.precision = next(name for name, known in DTYPES.items() if known == dtype)
        self.dtype, self.unconverted = dtype, {}
        self.head.float()  # nothing behind it could average an error away
        self.calls = Recordings(self.answer, recorder, self._tables)
        self.eval()

    def forward(self, images: Image) -> Tensor:
        """Return fp32 logits."""
        return in_own_precision("cuda", self.calls, images)

    def answer(self, images: Image) -> Tensor:
        """Compute the logits, order by order."""
        features = self._features(images)
        return self.head(features._replace(tokens=features.tokens.float()))

    def _tables(self) -> list[Any]:
        """Return the tables that a recording reads: a grid that is forgotten must not take them away."""
        return [dict(module.tables) for module in self.modules() if isinstance(module, CudaWindowAttention)]

    def features(self, images: Image) -> Features:
        """Return tokens, grid and pyramid, in the precision of the model."""
        return in_own_precision("cuda", self._features, images)

    def _features(self, images: Image) -> Features:
        return self.backbone(images.to(self.dtype))


def optimize_for_cuda(model: Classifier, dtype: torch.dtype, recorder: Any = record) -> CudaGraphClassifier:
    """Return the fast form of a classifier on a GPU.

    Windows know who meets on a grid after the first call, LayerScales are folded into what stands before them, sum and
    norm are one pass, weights of convolutions lie channels last, and calls of few pictures are recorded. Attention and
    norms run in Triton where it is (`vitrail.kernels`). `optimized.unconverted` says what stayed as it was.

    Args:
        model: a classifier; it is not changed.
        dtype: of weights and products.
        recorder: makes a replay of a call.
    """
    fast: Any = deepcopy(model).eval().requires_grad_(False)
    unconverted: Counter[str] = Counter()
    _replace(fast, dtype, unconverted)
    fast = fast.to(dtype=dtype, memory_format=torch.channels_last)
    recorded = CudaGraphClassifier(fast, dtype, recorder)
    recorded.unconverted = dict(unconverted)
    return recorded


def _replace(parent: nn.Module, dtype: torch.dtype, unconverted: Counter[str]) -> None:
    """Put the fast form of each block and window attention in its place."""
    for name, child in list(parent.named_children()):
        if type(child) is Block:
            fold_scales(child)
            _replace(child, dtype, unconverted)
            if type(child.norm2) is nn.LayerNorm and child.norm2.bias is not None:
                setattr(parent, name, CudaBlock(child))
            else:
                unconverted[f"sum and norm: {type(child.norm2).__name__} is no LayerNorm"] += 1
        elif type(child) is WindowAttention and type(child.position).rotate is NoPosition.rotate:
            setattr(parent, name, CudaWindowAttention(child, dtype))
        elif type(child) is WindowAttention:
            unconverted["token mixer: its position turns queries and keys"] += 1
        else:
            _replace(child, dtype, unconverted)


def fold_scales(block: nn.Module) -> None:
    """Fold the LayerScales of a block into the linear layers before them."""
    for scale, last in (("scale1", "token_mixer.proj"), ("scale2", "channel_mixer.fc2")):
        gamma = getattr(block, scale, None)
        try:
            layer = block.get_submodule(last)
        except AttributeError:
            continue
        if type(gamma) is LayerScale and type(layer) is nn.Linear:
            layer.weight.mul_(gamma.gamma[:, None])
            if layer.bias is not None:
                layer.bias.mul_(gamma.gamma)
            setattr(block, scale, nn.Identity())
