"""Blocks in the form that they learn in: each branch one operation, which keeps less for its gradient.

A quick block holds the very modules of the block that it stands for, so weights, names and what is saved are the same.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vitrail.fused.unsupported import has_hooks
from vitrail.grid import Grid
from vitrail.kernels.fused_attention import fused_attention
from vitrail.kernels.fused_mlp import fused_mlp
from vitrail.kernels.fused_neighborhood import fused_neighborhood
from vitrail.kernels.fused_types import AttentionGroups, LinearWeights, NeighborhoodSpec, NormWeights
from vitrail.parts.attend import Attend, NoQKNorm
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.positions import NoPosition, RelativePositionBias
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttend, NeighborhoodAttention
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.window_attention import WindowAttend, WindowAttention
from vitrail.shapes import Tokens

Branch = Callable[[Tokens, Grid, NormWeights, Tensor | None], Tensor]
"""`(x, grid, norm, drop_scale) -> x + drop_scale * f(norm(x))`."""


class FusedTrainBlock(Block):
    """A block whose branches are one operation each, where there is one for what the branch holds.

    Args:
        block: what to compute; it is not to be used any more.
    """

    def __init__(self, block: Block):
        nn.Module.__init__(self)
        for name, module in block.named_children():
            self.add_module(name, module)
        self.train(block.training)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix tokens, then channels."""
        x = self._branch(x, grid, self.norm1, self.token_mixer, self.scale1)
        return self._branch(x, grid, self.norm2, self.channel_mixer, self.scale2)

    def _branch(self, x: Tokens, grid: Grid, norm: nn.Module, mixer: nn.Module, scale: nn.Module) -> Tensor:
        branch = branch_of(norm, mixer, scale)
        if branch is None:
            return x + self.drop_path(scale(mixer(norm(x), grid)))
        assert isinstance(norm, nn.LayerNorm)
        return branch(x, grid, NormWeights(norm.weight, norm.bias, norm.eps), self.drop_path.draw(x))


def fuse_for_training(model: nn.Module) -> nn.Module:
    """Put quick blocks in the place of a model's blocks, and return the model.

    Example:
        >>> from vitrail.models import create_model
        >>> model = fuse_for_training(create_model("vit_tiny_patch16_224", depth=1))
        >>> type(model.backbone.stages[0].blocks[0]).__name__
        'FusedTrainBlock'
    """
    for name, block in [*model.named_modules()]:
        if type(block) is Block:
            model.set_submodule(name, FusedTrainBlock(block), strict=True)
    return model


def branch_of(norm: nn.Module, mixer: nn.Module, scale: nn.Module) -> Branch | None:
    """Return the one operation that a branch is, or None where there is none for it."""
    if type(norm) is not nn.LayerNorm or norm.bias is None or type(scale) is not nn.Identity or has_hooks(norm, mixer):
        return None
    if type(mixer) is MLP and type(mixer.act) is nn.GELU and mixer.act.approximate == "none" and _linears(mixer):
        return _mlp(mixer)
    if type(mixer) is WindowAttention and type(mixer.attend) is WindowAttend and _plain(mixer):
        return _window_attention(mixer)
    if type(mixer) is SelfAttention and type(mixer.attend) is Attend and _plain(mixer):
        return _self_attention(mixer)
    if type(mixer) is NeighborhoodAttention and type(mixer.attend) is NeighborhoodAttend and _plain(mixer):
        return _neighborhood_attention(mixer)
    return None


def _mlp(mixer: MLP) -> Branch:
    def run(x: Tokens, grid: Grid, norm: NormWeights, drop_scale: Tensor | None) -> Tensor:
        return fused_mlp(x, norm, _linear(mixer.fc1), _linear(mixer.fc2), drop_scale)

    return run


def _window_attention(mixer: WindowAttention) -> Branch:
    def run(x: Tokens, grid: Grid, norm: NormWeights, drop_scale: Tensor | None) -> Tensor:
        cut = mixer.cut.of(grid, mixer.window_size, mixer.shift)
        bias = cut.bias_plus_mask(mixer.position.bias(x, Grid(*cut.window)), like=x)
        meeting = AttentionGroups(mixer.num_heads, bias, cut.mask_index(x.device), cut.token_index(x.device))
        return fused_attention(x, norm, _linear(mixer.qkv), _linear(mixer.proj), meeting, drop_scale)

    return run


def _self_attention(mixer: SelfAttention) -> Branch:
    def run(x: Tokens, grid: Grid, norm: NormWeights, drop_scale: Tensor | None) -> Tensor:
        bias = mixer.position.bias(x, grid)
        everyone = torch.arange(x.shape[1], device=x.device)[None]
        meeting = AttentionGroups(
            mixer.num_heads, None if bias is None else bias[None], everyone.new_zeros(1), everyone
        )
        return fused_attention(x, norm, _linear(mixer.qkv), _linear(mixer.proj), meeting, drop_scale)

    return run


def _neighborhood_attention(mixer: NeighborhoodAttention) -> Branch:
    def run(x: Tokens, grid: Grid, norm: NormWeights, drop_scale: Tensor | None) -> Tensor:
        kernel_size, dilation = mixer.attend.kernel_size, mixer.attend.dilation
        spec = NeighborhoodSpec(mixer.num_heads, mixer.position.table, grid, kernel_size, dilation)
        return fused_neighborhood(x, norm, _linear(mixer.qkv), _linear(mixer.proj), spec, drop_scale)

    return run


def _linear(layer: nn.Linear) -> LinearWeights:
    return LinearWeights(layer.weight, layer.bias)


def _plain(mixer: WindowAttention | SelfAttention | NeighborhoodAttention) -> bool:
    """Say whether positions leave queries and keys alone and the projections are linear, with biases."""
    known = type(mixer.position) in (NoPosition, RelativePositionBias)
    known &= type(getattr(mixer, "qk_norm", None)) in (NoQKNorm, type(None))
    return known and mixer.qkv.bias is not None and _linears(mixer)


def _linears(mixer: nn.Module) -> bool:
    """Say whether its layers are linear ones and nothing more, such as an adapter, which has weights of its own."""
    layers = (getattr(mixer, name, None) for name in ("qkv", "proj", "fc1", "fc2"))
    return all(type(layer) is nn.Linear for layer in layers if layer is not None)
