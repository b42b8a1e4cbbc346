"""The token MLP of a Mixer block in its fast form."""

import torch
from torch import Tensor, nn

from vitrail.fused.mlp import check_layers
from vitrail.fused.unsupported import NotConverted, check_exact_type
from vitrail.grid import Grid
from vitrail.native.norms import LaneNorm
from vitrail.native.token_mlp import TokenLayer, token_mlp
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.token_mixers.token_mlp import TokenMLP
from vitrail.shapes import Tokens


class FusedTokenMLP(nn.Module):
    """`x + mixer(norm(x))` without transposing tokens."""

    def __init__(self, norm: nn.LayerNorm, mixer: TokenMLP, dtype: torch.dtype):
        super().__init__()
        self.norm, self.check = LaneNorm.of(norm), mixer.check
        self.first, self.second = TokenLayer.of(mixer.mlp.fc1, dtype), TokenLayer.of(mixer.mlp.fc2, dtype)
        del mixer.mlp

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        self.check(grid)
        return token_mlp(x, self.norm, self.first, self.second)


def fuse_token_mlp(norm: nn.Module, mixer: TokenMLP, scale: nn.Module, dtype: torch.dtype) -> FusedTokenMLP:
    """Return the fast form of a token MLP's branch.

    Raises:
        NotConverted: no LayerNorm before it, another activation or kind of layer, or a scale behind it.
    """
    if type(norm) is not nn.LayerNorm:
        raise NotConverted(f"the norm before it is {type(norm).__name__}, not LayerNorm")
    if type(scale) is not nn.Identity:
        raise NotConverted(f"what scales it is {type(scale).__name__}")
    check_exact_type(MLP, mixer.mlp)
    check_layers(mixer.mlp)
    return FusedTokenMLP(norm, mixer, dtype)
