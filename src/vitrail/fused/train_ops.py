"""Fused training operations of mixers: one autograd function per residual branch.

`(mixer, x, grid, norm, drop_scale) -> x + drop_scale * mixer(norm(x))`, with the weights read from the mixer at each
call, so that an optimizer, a hook or `load_state_dict` may change them.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from vitrail.fused.attention_groups import attention_groups
from vitrail.grid import Grid
from vitrail.kernels.fused_attention import fused_attention
from vitrail.kernels.fused_mlp import fused_mlp
from vitrail.kernels.fused_neighborhood import fused_neighborhood
from vitrail.kernels.fused_types import LinearWeights, NeighborhoodSpec, NormWeights
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.shapes import Tokens

TrainOp = Callable[[Any, Tokens, Any, NormWeights, Tensor | None], Tensor]
"""`(mixer, x, grid, norm, drop_scale) -> x`."""


def train_attention(
    mixer: SelfAttention | WindowAttention, x: Tokens, grid: Grid, norm: NormWeights, drop_scale: Tensor | None
) -> Tensor:
    """Attention over all tokens or within windows."""
    groups = attention_groups(mixer, grid, x)
    return fused_attention(x, norm, _weights(mixer.qkv), _weights(mixer.proj), groups, drop_scale)


def train_neighborhood(
    mixer: NeighborhoodAttention, x: Tokens, grid: Grid, norm: NormWeights, drop_scale: Tensor | None
) -> Tensor:
    """Neighborhood attention."""
    attend = mixer.attend
    spec = NeighborhoodSpec(mixer.num_heads, mixer.position.table, grid, attend.kernel_size, attend.dilation)
    return fused_neighborhood(x, norm, _weights(mixer.qkv), _weights(mixer.proj), spec, drop_scale)


def train_mlp(mixer: MLP, x: Tokens, grid: object, norm: NormWeights, drop_scale: Tensor | None) -> Tensor:
    """MLP of each token."""
    return fused_mlp(x, norm, _weights(mixer.fc1), _weights(mixer.fc2), drop_scale)


def _weights(layer: nn.Linear) -> LinearWeights:
    return LinearWeights(layer.weight, layer.bias)
