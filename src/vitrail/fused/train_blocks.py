"""Fused training blocks: one autograd function per residual branch, fewer saved activations.

A fused block holds the modules of the block that it replaces: weights, names and checkpoints are the same.
"""

from torch import Tensor, nn

from vitrail.fused.blocks import block_unsupported_reason
from vitrail.fused.table import MIXERS, unsupported_reason
from vitrail.fused.train_ops import TrainOp
from vitrail.fused.unsupported import has_hooks
from vitrail.fused.walker import replace_modules
from vitrail.grid import Grid
from vitrail.kernels.fused_neighborhood.cpp import LIBRARIES as NEIGHBORHOOD_LIBRARIES
from vitrail.kernels.fused_types import LIBRARIES, NormWeights
from vitrail.layouts import Layout
from vitrail.native.build import missing
from vitrail.parts.blocks import Block
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention
from vitrail.shapes import Tokens


class FusedTrainBlock(Block):
    """Block with a fused operation for each branch that has one; the others run as they are.

    Args:
        block: block to replace; do not use it afterwards.
    """

    def __init__(self, block: Block):
        nn.Module.__init__(self)
        for name, module in block.named_children():
            self.add_module(name, module)
        self.train(block.training)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix tokens, then channels."""
        x = self._branch(x, grid, self.norm1, self.token_mixer, self.scale1)
        return self._branch(x, grid, self.norm2, self.channel_mixer, self.scale2)

    def _branch(self, x: Tokens, grid: Layout, norm: nn.Module, mixer: nn.Module, scale: nn.Module) -> Tensor:
        op = train_op(norm, mixer, scale, grid)
        if op is None:
            return x + self.drop_path(scale(mixer(norm(x), grid)))
        assert isinstance(norm, nn.LayerNorm)
        return op(mixer, x, grid, NormWeights(norm.weight, norm.bias, norm.eps), self.drop_path.draw(x))


def fuse_for_training(model: nn.Module) -> nn.Module:
    """Replace the blocks of a model by fused training blocks, in place, and return the model.

    Example:
        >>> from vitrail.models import create_model
        >>> model = fuse_for_training(create_model("vit_tiny_patch16_224", depth=1))
        >>> type(model.backbone.stages[0].blocks[0]).__name__
        'FusedTrainBlock'
    """
    replace_modules(model, _fuse)
    return model


def _fuse(module: nn.Module) -> nn.Module | None:
    if type(module) is not Block or block_unsupported_reason(module) is not None:
        return None
    return None if module._forward_hooks or module._forward_pre_hooks else FusedTrainBlock(module)


def training_kernels(model: nn.Module) -> tuple[str, str] | None:
    """Return `native` or `PyTorch`, which computes the fused blocks of a model, and the reason of the latter.

    Both round differently, so a repeat bit for bit depends on it. None if the model has no fused blocks.

    Example:
        >>> training_kernels(nn.Linear(2, 2)) is None
        True
    """
    blocks = [module for module in model.modules() if isinstance(module, FusedTrainBlock)]
    if not blocks:
        return None
    neighborhoods = any(isinstance(block.token_mixer, NeighborhoodAttention) for block in blocks)
    reason = missing("gemm", *LIBRARIES, *(NEIGHBORHOOD_LIBRARIES if neighborhoods else ()))
    return ("native", "") if reason is None else ("PyTorch", reason)


def train_op(norm: nn.Module, mixer: nn.Module, scale: nn.Module, grid: Layout) -> TrainOp | None:
    """Return the fused operation of a residual branch on a layout, or None.

    Decided at each call: hooks, adapters and quantized layers may be added to a model at any time.
    """
    if type(norm) is not nn.LayerNorm or norm.bias is None or len(norm.normalized_shape) != 1:
        return None
    if type(scale) is not nn.Identity or has_hooks(norm, scale) or unsupported_reason(mixer, "train") is not None:
        return None
    row = MIXERS[type(mixer)]
    if not row.any_layout and type(grid) is not Grid:
        return None  # padding, a cache: native code computes image tokens
    biased = all(layer.bias is not None for layer in mixer._modules.values() if type(layer) is nn.Linear)
    return row.train if biased else None
