"""Fused cross-covariance attention (XCiT), for CPU inference."""

import torch
from torch import Tensor, nn

from vitrail.fused.folding import NormAffine, scaled
from vitrail.fused.unsupported import NotConverted, Seats
from vitrail.grid import Grid
from vitrail.native.gemm import ADD, linear, pack_linear
from vitrail.parts.token_mixers.cross_covariance import CrossCovarianceAttention
from vitrail.shapes import Tokens

CROSS_COVARIANCE_SEATS: Seats = {"qkv": (nn.Linear,), "proj": (nn.Linear,)}


class FusedCrossCovariance(nn.Module):
    """`x + scale(mixer(norm(x)))`; maps are d x d.

    tau (q / |q|) (k / |k|)^T = tau (q k^T) / (|q| |k|^T): lengths over the tokens divide the small map, so that no pass
    normalises q or k.
    """

    def __init__(self, norm: nn.Module, mixer: CrossCovarianceAttention, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        affine = NormAffine.of(norm, mixer.qkv.in_features)
        if affine.eps is None:
            raise NotConverted(f"the norm before it is {type(norm).__name__}, not LayerNorm over channels")
        if dtype == torch.bfloat16 and mixer.qkv.in_features % 2:
            raise NotConverted(f"bf16 needs an even width, got {mixer.qkv.in_features}")
        self.eps, self.heads, self.dtype = affine.eps, mixer.num_heads, dtype
        self.qkv = pack_linear(*affine.folded(mixer.qkv), dtype)
        self.proj = pack_linear(*scaled(mixer.proj, scale), dtype)
        self.temperature = [mixer.temperature.detach().float()]  # (h, 1, 1), in a list, so that it stays in fp32

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        qkv = linear(x, self.qkv, norm_eps=self.eps, dtype=self.dtype)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, h, N, d) each
        rows, columns = (part.float().square().sum(-2).sqrt().clamp(min=1e-12) for part in (q, k))  # (B, h, d) each
        scores = (q.mT @ k).float() * self.temperature[0] / (rows[..., None] * columns[..., None, :])
        mixed = v @ scores.softmax(-1).to(self.dtype).mT  # (B, h, N, d)
        return linear(mixed.transpose(1, 2).flatten(2), self.proj, ADD, add=x)
