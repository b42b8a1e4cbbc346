"""Fused MLP branch with an activation other than GELU, for CPU inference."""

import torch
from torch import Tensor, nn

from vitrail.fused.folding import NormAffine, scaled
from vitrail.fused.low_rank import has_products
from vitrail.fused.mlp import check_mlp
from vitrail.fused.norms import norm_before
from vitrail.fused.unsupported import NotConverted, Seats
from vitrail.grid import Grid
from vitrail.native.gemm import GELU, QUICK_GELU, SQUARED_RELU, TANH_GELU, mlp, pack_linear
from vitrail.parts.activations import QuickGELU, StarReLU
from vitrail.parts.channel_mixers import MLP
from vitrail.shapes import Tokens

ACTIVATIONS: Seats = {"act": (StarReLU, QuickGELU)}
"""Activations besides GELU."""


def activation_of(act: nn.Module) -> int:
    """Return the epilogue of an activation: GELU, exact or with tanh, or one of `ACTIVATIONS`.

    Example:
        >>> activation_of(nn.GELU("tanh")) == TANH_GELU
        True
    """
    if isinstance(act, nn.GELU):
        return TANH_GELU if act.approximate == "tanh" else GELU
    return SQUARED_RELU if isinstance(act, StarReLU) else QUICK_GELU


class FusedActivatedMLP(nn.Module):
    """`x + scale(W_2 act(W_1 norm(x)))` in one call; a norm other than LayerNorm runs before it.

    Scale and bias of StarReLU are folded into the last layer:

    W_2 (s r^2 + b) = (s W_2) r^2 + b W_2 1, r = max(W_1 norm(x), 0)
    """

    def __init__(self, norm: nn.Module, mixer: MLP, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        affine = NormAffine.of(norm, mixer.fc1.in_features)
        self.norm = norm_before(norm, affine)
        self.eps, self.activation = affine.eps, activation_of(mixer.act)
        self.first = pack_linear(*affine.folded(mixer.fc1), dtype)
        weight, bias = scaled(mixer.fc2, scale)
        if isinstance(mixer.act, StarReLU):
            shift = mixer.act.bias.detach().float() * weight.sum(1)
            weight, bias = weight * mixer.act.scale.detach().float(), shift if bias is None else shift + bias
        self.second = pack_linear(weight, bias, dtype)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        return mlp(self.norm(x), self.first, self.second, x, self.eps, self.activation)


def fuse_activated_mlp(norm: nn.Module, mixer: MLP, scale: nn.Module, dtype: torch.dtype) -> FusedActivatedMLP:
    """Return the fused branch of an MLP with GELU by tanh, or one of `ACTIVATIONS`.

    Raises:
        NotConverted: its layers are products, an odd number of channels in bf16, or an unknown scale.
    """
    check_mlp(mixer, dtype)
    if has_products(mixer):
        raise NotConverted(f"its layers are products, and its act is {type(mixer.act).__name__}")
    return FusedActivatedMLP(norm, mixer, scale, dtype)
