"""Fused branches whose linear layers may be products of two, for CPU inference: every factor is a native GEMM."""

import torch
from torch import Tensor, nn

from vitrail.fused.attention_groups import AttentionGroupsCache
from vitrail.fused.folding import NormAffine, scaled
from vitrail.fused.unsupported import NotConverted, Seats
from vitrail.grid import Grid
from vitrail.native.attention import attend_groups
from vitrail.native.gemm import ADD, GELU, PLAIN, Packed, linear, pack_linear
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.factorized_linear import FactorizedLinear
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.shapes import Tokens

Chain = list[Packed]
"""A linear layer as one packed GEMM, or as two."""


def with_products(seats: Seats) -> Seats:
    """Return seats in which a product of two layers may take the place of a linear layer."""
    return {name: (*kinds, FactorizedLinear) if nn.Linear in kinds else kinds for name, kinds in seats.items()}


def has_products(mixer: nn.Module) -> bool:
    """Return whether one of the layers of a mixer is a product."""
    return any(type(child) is FactorizedLinear for child in mixer.children())


def normed_chain(
    layer: nn.Linear | FactorizedLinear, affine: NormAffine, dtype: torch.dtype, factor: Tensor | None = None
) -> Chain:
    """Pack a layer after a norm, whose weights are folded into its first factor.

    Args:
        layer: a linear layer or a product.
        affine: weights of the norm.
        dtype: compute dtype.
        factor: multiplies each output.
    """
    if isinstance(layer, FactorizedLinear):
        check_even(layer.rank, dtype)
        first = pack_linear(*affine.folded(layer.first), dtype)
        weight, bias = layer.second.weight.detach().float(), layer.second.bias
        bias = None if bias is None else bias.detach().float()
        return [first, pack_linear(*_times(weight, bias, factor), dtype)]
    return [pack_linear(*_times(*affine.folded(layer), factor), dtype)]


def scaled_chain(layer: nn.Linear | FactorizedLinear, scale: nn.Module, dtype: torch.dtype) -> Chain:
    """Pack a layer with the scale after it folded into its last factor."""
    if isinstance(layer, FactorizedLinear):
        check_even(layer.rank, dtype)
        return [pack_linear(layer.first.weight, None, dtype), pack_linear(*scaled(layer.second, scale), dtype)]
    return [pack_linear(*scaled(layer, scale), dtype)]


def check_even(rank: int, dtype: torch.dtype) -> None:
    """Check a rank.

    Raises:
        NotConverted: it is odd and the compute dtype is bf16.
    """
    if dtype == torch.bfloat16 and rank % 2:
        raise NotConverted(f"bf16 needs an even rank, got {rank}")


def _times(weight: Tensor, bias: Tensor | None, factor: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if factor is None:
        return weight, bias
    return weight * factor[:, None], None if bias is None else bias * factor


def run_chain(
    x: Tensor,
    chain: Chain,
    dtype: torch.dtype,
    finish: int = PLAIN,
    add: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """Apply the GEMMs of a layer, with a norm before the first and an epilogue after the last."""
    for packed in chain[:-1]:
        x, eps = linear(x, packed, norm_eps=eps, dtype=dtype), None
    return linear(x, chain[-1], finish, add, norm_eps=eps, dtype=dtype if add is None else None)


class FusedProductMLP(nn.Module):
    """`x + scale(mlp(norm(x)))` with layers that may be products."""

    def __init__(self, norm: nn.Module, mixer: MLP, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        affine = NormAffine.of(norm, mixer.fc1.in_features)
        self.norm = nn.Identity() if affine.eps is not None else norm
        self.eps, self.dtype = affine.eps, dtype
        self.first, self.second = normed_chain(mixer.fc1, affine, dtype), scaled_chain(mixer.fc2, scale, dtype)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        hidden = run_chain(self.norm(x), self.first, self.dtype, GELU, eps=self.eps)
        return run_chain(hidden, self.second, self.dtype, ADD, add=x)


class FusedProductAttention(nn.Module):
    """`x + scale(mixer(norm(x)))` for attention whose projections may be products."""

    def __init__(
        self, affine: NormAffine, mixer: SelfAttention | WindowAttention, scale: nn.Module, dtype: torch.dtype
    ):
        super().__init__()
        inner, self.heads, self.dtype, self.eps = mixer.proj.in_features, mixer.num_heads, dtype, affine.eps
        queries = torch.ones(3 * inner, dtype=torch.float32, device="cpu")
        queries[:inner] = (inner // self.heads) ** -0.5
        self.qkv = normed_chain(mixer.qkv, affine, dtype, queries)
        self.proj = scaled_chain(mixer.proj, scale, dtype)
        bias = mixer.qkv.bias
        padding = torch.zeros_like(queries) if bias is None else bias.detach().float()
        del mixer.qkv, mixer.proj
        self.groups = AttentionGroupsCache(mixer, (padding * queries).to(dtype))

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        qkv = run_chain(x, self.qkv, self.dtype, eps=self.eps)
        mixed = attend_groups(qkv, self.heads, self.groups.on(grid))
        return run_chain(mixed, self.proj, self.dtype, ADD, add=x)
