"""Fused retention (RetNet), for CPU inference."""

import torch
from torch import Tensor, nn

from vitrail.fused.folding import NormAffine, scaled
from vitrail.fused.grid_cache import GridCache
from vitrail.fused.rotary_attention import rotation_by
from vitrail.fused.unsupported import NotConverted, Seats
from vitrail.grid import Grid
from vitrail.native.attention import Rotation
from vitrail.native.gemm import ADD, linear, pack_linear
from vitrail.native.retention import Decay, retention
from vitrail.parts.token_mixers.retention import ParallelRetention, Retention, decay_rates, rotate_pairs
from vitrail.shapes import Tokens

RETENTION_SEATS: Seats = {
    **dict.fromkeys(("q", "k", "v", "gate", "proj"), (nn.Linear,)),
    "retain": (ParallelRetention,),
}


class FusedRetention(nn.Module):
    """`x + scale(mixer(norm(x)))`: queries, keys, values and gates are one projection."""

    def __init__(self, norm: nn.Module, mixer: Retention, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        dim, heads = mixer.q.in_features, mixer.num_heads
        affine = NormAffine.of(norm, dim)
        if affine.eps is None:
            raise NotConverted(f"the norm before it is {type(norm).__name__}, not LayerNorm over channels")
        width, wide = mixer.q.out_features // heads, mixer.v.out_features // heads
        if dtype == torch.bfloat16 and (dim % 2 or width % 2 or wide % 2):
            raise NotConverted(f"bf16 needs even widths, got {dim}, and heads of {width} and {wide}")
        parts = [affine.folded(layer) for layer in (mixer.q, mixer.k, mixer.v, mixer.gate)]
        parts[1] = parts[1][0] * width**-0.5, parts[1][1] * width**-0.5
        weight, bias = (torch.cat(values) for values in zip(*parts, strict=True))
        self.rows = pack_linear(weight, bias, dtype)
        self.proj = pack_linear(*scaled(mixer.proj, scale), dtype)
        self.eps, self.inner_eps, self.heads, self.width, self.dtype = affine.eps, mixer.eps, heads, width, dtype
        self.tables: GridCache[int, tuple[Rotation, Decay]] = GridCache()

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        turn, decay = self.tables.of(grid.tokens, lambda: self._make(grid.tokens))
        rows = linear(x, self.rows, norm_eps=self.eps, dtype=self.dtype)
        return linear(retention(rows, self.heads, self.width, turn, decay, self.inner_eps), self.proj, ADD, add=x)

    @torch.no_grad()
    def _make(self, tokens: int) -> tuple[Rotation, Decay]:
        gammas = decay_rates(self.heads, torch.zeros(1)).flatten()
        return rotation_by(rotate_pairs, tokens, self.width), Decay.of(gammas, tokens)


def retention_unsupported_reason(mixer: Retention) -> str | None:
    """Return why fused code does not compute a retention with known parts, or None."""
    same = mixer.q.out_features == mixer.k.out_features and mixer.v.out_features == mixer.gate.out_features
    fits = mixer.proj.in_features == mixer.v.out_features and mixer.proj.out_features == mixer.q.in_features
    whole = not (mixer.q.out_features % mixer.num_heads or mixer.v.out_features % mixer.num_heads)
    return None if same and fits and whole else "its projections do not fit together"
