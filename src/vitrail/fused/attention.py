"""Attention over all tokens or within windows in its fast form."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitrail.fused.folding import Affine, scaled
from vitrail.fused.grid_cache import GridCache
from vitrail.fused.unsupported import NotConverted, check_exact_type
from vitrail.grid import Grid
from vitrail.native.attention import TokenGroups, attend_groups, attention_branch, lane_bias
from vitrail.native.gemm import ADD, Packed, linear, pack_linear
from vitrail.native.threads import shared_evenly
from vitrail.parts.attend import Attend, NoQKNorm
from vitrail.parts.positions import NoPosition, RelativePositionBias
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.window_attention import WindowAttend, WindowAttention
from vitrail.shapes import Tokens


class AttentionGroupsCache:
    """Makes the table of each grid, once, from a mixer's position and the way it cuts.

    It is no module, so that the mixer's parameters stay in fp32: biases are added to scores in fp32.

    Args:
        mixer: who says who meets.
        padding: `(3 C,)`, queries, keys and values of padding.
    """

    def __init__(self, mixer: SelfAttention | WindowAttention, padding: Tensor):
        self.mixer, self.padding = mixer, padding
        self.tables: GridCache[Grid, TokenGroups] = GridCache()

    def on(self, grid: Grid) -> TokenGroups:
        """Return the table of a grid."""
        return self.tables.of(grid, lambda: self._table(grid))

    @torch.no_grad()
    def _table(self, grid: Grid) -> TokenGroups:
        token_index = self.mixer.token_index(grid).int().contiguous()
        bias = self._bias(grid)
        if bias is None:
            return TokenGroups(token_index, self.padding)
        if bias.ndim == 3:  # (h, n, n), the same for all groups
            bias = bias[None]
            mask_index = torch.zeros(len(token_index), dtype=torch.int32, device="cpu")
        else:  # (groups, h, n, n), of which few differ
            bias, mask_index = bias.unique(dim=0, return_inverse=True)
        return TokenGroups(token_index, self.padding, mask_index.int().contiguous(), lane_bias(bias))

    def _bias(self, grid: Grid) -> Tensor | None:
        mixer = self.mixer
        if isinstance(mixer, SelfAttention):
            return mixer.position.bias(self._queries(grid), grid)
        cut = mixer.cut.of(grid, mixer.window_size, mixer.shift)
        within = Grid(*cut.window)
        queries = self._queries(within)
        return cut.separate(mixer.position.bias(queries, within), like=queries)

    def _queries(self, grid: Grid) -> Tensor:
        """Return queries to ask a position with: only their number, precision and device count."""
        return torch.zeros(1, self.mixer.num_heads, grid.tokens, 1, dtype=torch.float32, device="cpu")


class AttentionLayers(NamedTuple):
    """Layers of an attention's branch in fp32, with all that stands beside them folded in.

    Args:
        qkv: weight and bias of queries, keys and values, the queries scaled by 1 / sqrt(d).
        proj: weight and bias of what comes after.
        padding: queries, keys and values of padding, which is zero after the norm.
        eps: of the norm without scale and shift.
    """

    qkv: tuple[Tensor, Tensor]
    proj: tuple[Tensor, Tensor | None]
    padding: Tensor
    eps: float

    @classmethod
    def of(cls, norm: nn.Module, mixer: SelfAttention | WindowAttention, scale: nn.Module) -> "AttentionLayers":
        """Read them off a branch."""
        width = mixer.qkv.in_features
        affine = Affine.of(norm, width)
        assert affine.eps is not None
        queries = torch.ones(3 * width, dtype=torch.float32, device="cpu")
        queries[:width] = (width // mixer.num_heads) ** -0.5
        weight, bias = affine.folded(mixer.qkv)
        beyond = torch.zeros_like(queries) if mixer.qkv.bias is None else mixer.qkv.bias.detach().float()
        return cls((weight * queries[:, None], bias * queries), scaled(mixer.proj, scale), beyond * queries, affine.eps)


class FusedAttention(nn.Module):
    """`x + scale(mixer(norm(x)))` for attention over all tokens or within windows.

    Tokens stay where they are: a table says which of them meet.
    """

    def __init__(self, norm: nn.Module, mixer: SelfAttention | WindowAttention, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        layers = AttentionLayers.of(norm, mixer, scale)
        self.qkv, self.proj = self.pack(layers, dtype)
        self.eps, self.heads, self.dtype = layers.eps, mixer.num_heads, dtype
        del mixer.qkv, mixer.proj
        self.groups = AttentionGroupsCache(mixer, layers.padding.to(dtype))

    def pack(self, layers: AttentionLayers, dtype: torch.dtype) -> tuple[Packed, Packed]:
        """Lay the weights out as the products read them."""
        return pack_linear(*layers.qkv, dtype), pack_linear(*layers.proj, dtype)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        seating = self.groups.on(grid)
        if shared_evenly(x.shape[0] * seating.slots.shape[0]):
            return attention_branch(x, self.heads, self.qkv, self.proj, seating, self.eps)
        qkv = linear(x, self.qkv, norm_eps=self.eps, dtype=self.dtype)
        mixed = attend_groups(qkv, self.heads, seating)
        return linear(mixed, self.proj, ADD, add=x)


def fuse_attention(
    norm: nn.Module, mixer: SelfAttention | WindowAttention, scale: nn.Module, dtype: torch.dtype
) -> FusedAttention:
    """Return the fast form of an attention's branch.

    Raises:
        NotConverted: as `check_attention` says, or an unknown scale.
    """
    check_attention(norm, mixer, dtype)
    return FusedAttention(norm, mixer, scale, dtype)


def check_attention(norm: nn.Module, mixer: SelfAttention | WindowAttention, dtype: torch.dtype) -> None:
    """Refuse an attention that no compiled form computes.

    Raises:
        NotConverted: no LayerNorm before it, an unknown position, layer or way to attend, or, in bf16, heads of odd
            width.
    """
    if type(norm) is not nn.LayerNorm:
        raise NotConverted(f"the norm before it is {type(norm).__name__}, not LayerNorm")
    if type(mixer.position).rotate is not NoPosition.rotate:
        raise NotConverted("its position turns queries and keys")
    if type(mixer.position) not in (NoPosition, RelativePositionBias):  # others may look at the queries
        raise NotConverted(f"its position is {type(mixer.position).__name__}")
    check_exact_type(WindowAttend if isinstance(mixer, WindowAttention) else Attend, mixer.attend)
    if isinstance(mixer, SelfAttention):
        check_exact_type(NoQKNorm, mixer.qk_norm)
    check_exact_type(nn.Linear, mixer.qkv, mixer.proj)
    if dtype == torch.bfloat16 and mixer.qkv.in_features // mixer.num_heads % 2:
        raise NotConverted("heads of odd width cannot be read in pairs")
