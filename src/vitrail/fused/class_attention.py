"""Fused class attention, for CPU inference."""

import torch
from torch import Tensor, nn

from vitrail.fused.folding import NormAffine, scaled
from vitrail.fused.norms import norm_before
from vitrail.fused.unsupported import NotConverted, Seats
from vitrail.grid import Grid
from vitrail.native.attention import attend_keys
from vitrail.native.gemm import ADD, linear, pack_linear
from vitrail.parts.attend import Attend
from vitrail.parts.token_mixers.class_attention import ClassAttention
from vitrail.shapes import Tokens

CLASS_ATTENTION_SEATS: Seats = {"q": (nn.Linear,), "kv": (nn.Linear,), "attend": (Attend,), "proj": (nn.Linear,)}


class FusedClassAttention(nn.Module):
    """`x + scale(attention(norm(x)))`, in which the prefix alone has queries: cells stay as they are."""

    def __init__(self, norm: nn.Module, mixer: ClassAttention, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        dim, self.heads, self.dtype = mixer.q.in_features, mixer.num_heads, dtype
        width = mixer.q.out_features // self.heads
        if dtype == torch.bfloat16 and (width % 2 or dim % 2):
            raise NotConverted(f"bf16 needs even widths, got {dim} and {width}")
        affine = NormAffine.of(norm, dim)
        self.norm, self.eps = norm_before(norm, affine), affine.eps
        weight, bias = affine.folded(mixer.q)
        self.q = pack_linear(weight * width**-0.5, bias * width**-0.5, dtype)
        self.kv = pack_linear(*affine.folded(mixer.kv), dtype)
        self.proj = pack_linear(*scaled(mixer.proj, scale), dtype)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        prefix, u = x[:, : grid.prefix].contiguous(), self.norm(x)
        q = linear(u[:, : grid.prefix], self.q, norm_eps=self.eps, dtype=self.dtype)
        kv = linear(u, self.kv, norm_eps=self.eps, dtype=self.dtype)
        prefix = linear(attend_keys(q, kv, self.heads), self.proj, ADD, add=prefix)
        return torch.cat([prefix, x[:, grid.prefix :]], dim=1)
