"""Fused cross-covariance attention (XCiT), for CPU inference."""

import torch
from torch import Tensor, nn

from vitrail.fused.folding import NormAffine, scaled
from vitrail.fused.unsupported import NotConverted, Seats
from vitrail.grid import Grid
from vitrail.native.cross_covariance import covariance_attention
from vitrail.native.gemm import ADD, linear, pack_linear
from vitrail.parts.token_mixers.cross_covariance import CrossCovarianceAttention
from vitrail.shapes import Tokens

CROSS_COVARIANCE_SEATS: Seats = {"qkv": (nn.Linear,), "proj": (nn.Linear,)}


class FusedCrossCovariance(nn.Module):
    """`x + scale(mixer(norm(x)))`; maps are d x d."""

    def __init__(self, norm: nn.Module, mixer: CrossCovarianceAttention, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        affine = NormAffine.of(norm, mixer.qkv.in_features)
        if affine.eps is None:
            raise NotConverted(f"the norm before it is {type(norm).__name__}, not LayerNorm over channels")
        width = mixer.qkv.out_features // 3 // mixer.num_heads
        if dtype == torch.bfloat16 and (mixer.qkv.in_features % 2 or width % 2):
            raise NotConverted(f"bf16 needs even widths, got {mixer.qkv.in_features} and heads of {width}")
        self.eps, self.heads, self.dtype = affine.eps, mixer.num_heads, dtype
        self.qkv = pack_linear(*affine.folded(mixer.qkv), dtype)
        self.proj = pack_linear(*scaled(mixer.proj, scale), dtype)
        self.temperature = [
            mixer.temperature.detach().float().flatten().contiguous()
        ]  # (h,), in a list, so that it stays in fp32

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        qkv = linear(x, self.qkv, norm_eps=self.eps, dtype=self.dtype)
        return linear(covariance_attention(qkv, self.heads, self.temperature[0]), self.proj, ADD, add=x)
