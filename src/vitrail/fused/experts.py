"""Fused mixture of experts, for CPU inference."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from vitrail.fused.activated_mlp import activation_of
from vitrail.fused.unsupported import NotConverted, Seats
from vitrail.layouts import Layout
from vitrail.native.casts import as_residual
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.gemm import mlp, pack_linear
from vitrail.native.layer_norm import layer_norm
from vitrail.native.norms import LaneNorm
from vitrail.parts.mixture_of_experts import MixtureOfExperts
from vitrail.parts.regularisation import LayerScale
from vitrail.parts.routing import TopExpertsRouter
from vitrail.shapes import Tokens

EXPERT_SEATS: Seats = {"router": (TopExpertsRouter,), "act": (nn.GELU,)}
EXPERT_PARAMETERS = ("weight1", "bias1", "weight2", "bias2")
"""Own parameters of a mixture, which the fused operation reads."""


class FusedMixtureOfExperts(nn.Module):
    """`x + scale(mixer(norm(x)))` for a sparse mixture of MLPs.

    Tokens are gathered for each expert, and its MLP is one or two GEMM calls; routing and the weighted sum are in fp32.
    """

    def __init__(self, norm: nn.LayerNorm, mixer: MixtureOfExperts, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        gamma = scale.gamma.detach().float() if isinstance(scale, LayerScale) else torch.ones(mixer.weight2.shape[1])
        second = mixer.weight2.detach().float() * gamma[:, None], mixer.bias2.detach().float() * gamma
        self.norm, self.activation = LaneNorm.of(norm), activation_of(mixer.act)
        # In lists: routing is in fp32, and packed weights are no parameters.
        self.router = [deepcopy(mixer.router).float().eval()]
        self.first = [pack_linear(*one, dtype) for one in zip(mixer.weight1, mixer.bias1, strict=True)]
        self.second = [pack_linear(*one, dtype) for one in zip(*second, strict=True)]
        del mixer.weight1, mixer.bias1, mixer.weight2, mixer.bias2

    def forward(self, x: Tokens, grid: Layout) -> Tensor:
        """Add the branch."""
        z = layer_norm(x, self.norm)
        routing, _ = self.router[0](z.float())
        images, _, experts, places = routing.combine.shape
        dispatch = routing.dispatch.permute(2, 0, 3, 1)  # (E, B, P, N)
        token = dispatch.argmax(-1) + torch.arange(len(x))[:, None] * x.shape[1]  # an empty place gets any token
        rows = z.flatten(0, 1)[token.flatten(1)]  # (E, B P, C)
        layers = zip(rows, self.first, self.second, strict=True)
        outputs = torch.stack([mlp(own, one, two, activation=self.activation) for own, one, two in layers])
        by_place = outputs.float().view(experts, images, places, x.shape[-1]).transpose(0, 1).flatten(1, 2)
        return as_residual(torch.baddbmm(x.float(), routing.combine.flatten(2), by_place), x.dtype)  # (B, E P, C)


def fuse_experts(
    norm: nn.Module, mixer: MixtureOfExperts, scale: nn.Module, dtype: torch.dtype
) -> FusedMixtureOfExperts:
    """Return the fused branch of a mixture of experts.

    Raises:
        NotConverted: its norm is no LayerNorm over channels, its scale is unknown, or in bf16 a width is odd.
    """
    _, hidden, dim = mixer.weight1.shape
    if type(norm) is not nn.LayerNorm or norm.normalized_shape != (dim,):
        raise NotConverted(f"the norm before it is {type(norm).__name__}, not LayerNorm over {dim} channels")
    if type(scale) not in (nn.Identity, LayerScale):
        raise NotConverted(f"its scale is {type(scale).__name__}")
    if RESIDUAL[dtype] != dtype and (dim % 2 or hidden % 2):
        raise NotConverted(f"bf16 needs even widths, got {dim} and {hidden}")
    return FusedMixtureOfExperts(norm, mixer, scale, dtype)
