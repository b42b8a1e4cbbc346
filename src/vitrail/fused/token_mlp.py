"""Fused token MLP of a Mixer block, for CPU inference."""

import torch
from torch import Tensor, nn

from vitrail.fused.mlp import MLP_SEATS, mlp_unsupported_reason
from vitrail.fused.unsupported import NotConverted, Seats, parts_unsupported_reason
from vitrail.grid import Grid
from vitrail.native.norms import LaneNorm
from vitrail.native.token_mlp import TokenLayer, token_mlp
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.token_mixers.token_mlp import TokenMLP
from vitrail.shapes import Tokens

TOKEN_MLP_SEATS: Seats = {"mlp": (MLP,)}


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
    """Return the fused branch of a token MLP.

    Raises:
        NotConverted: no LayerNorm before it, or a scale after it.
    """
    if type(norm) is not nn.LayerNorm or len(norm.normalized_shape) != 1:
        raise NotConverted(f"the norm before it is {type(norm).__name__}, not LayerNorm over channels")
    if type(scale) is not nn.Identity:
        raise NotConverted(f"its scale is {type(scale).__name__}")
    return FusedTokenMLP(norm, mixer, dtype)


def token_mlp_unsupported_reason(mixer: TokenMLP) -> str | None:
    """Return why fused code does not compute a token MLP with known parts, or None."""
    return parts_unsupported_reason(mixer.mlp, MLP_SEATS) or mlp_unsupported_reason(mixer.mlp)
