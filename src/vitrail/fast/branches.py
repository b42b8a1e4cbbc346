"""The branches of a block in their fast form: each answers with the sum that it is added to.

Only what the model computes anyway is moved: the scale and shift of a LayerNorm, the queries' 1 / sqrt(d) and a
LayerScale are folded into the weights beside them, in fp32, before any rounding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.native.operations import ADD, attend_groups, lane_bias, linear, mlp, pack_linear
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.positions import NoPosition
from vitrail.parts.regularisation import LayerScale
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.shapes import Tokens

KEPT_GRIDS = 8


class FastBlock(nn.Module):
    """A block of two branches, `(x, grid) -> x`, each of which adds itself."""

    def __init__(self, tokens: nn.Module, channels: nn.Module):
        super().__init__()
        self.tokens, self.channels = tokens, channels

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix tokens, then channels."""
        return self.channels(self.tokens(x, grid), grid)


class PlainBranch(nn.Module):
    """`x + scale(mixer(norm(x)))` as it was."""

    def __init__(self, norm: nn.Module, mixer: nn.Module, scale: nn.Module):
        super().__init__()
        self.norm, self.mixer, self.scale = norm, mixer, scale

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        return x + self.scale(self.mixer(self.norm(x), grid))


class FastMLP(nn.Module):
    """`x + scale(mlp(norm(x)))` in one go; a norm that is no LayerNorm runs before it."""

    def __init__(self, norm: nn.Module, mixer: MLP, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        affine = Affine.of(norm, mixer.fc1.in_features)
        self.norm = nn.Identity() if affine.eps is not None else norm
        self.eps = affine.eps
        self.first = pack_linear(*affine.folded(mixer.fc1), dtype)
        self.second = pack_linear(*scaled(mixer.fc2, scale), dtype)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        return mlp(self.norm(x), self.first, self.second, add=x, norm_eps=self.eps)


class FastAttention(nn.Module):
    """`x + scale(mixer(norm(x)))` for attention over all tokens or within windows.

    Tokens stay where they are: a table says which of them meet. Tables are made once for each grid.
    """

    def __init__(
        self, norm: nn.LayerNorm, mixer: SelfAttention | WindowAttention, scale: nn.Module, dtype: torch.dtype
    ):
        super().__init__()
        affine = Affine.of(norm, mixer.qkv.in_features)
        assert affine.eps is not None
        self.eps, self.heads, self.dtype = affine.eps, mixer.num_heads, dtype
        width = mixer.qkv.in_features
        queries = torch.ones(3 * width)
        queries[:width] = (width // mixer.num_heads) ** -0.5
        weight, bias = affine.folded(mixer.qkv)
        self.qkv = pack_linear(weight * queries[:, None], bias * queries, dtype)
        plain = torch.zeros(3 * width) if mixer.qkv.bias is None else mixer.qkv.bias.detach()
        self.padding = (plain * queries).to(dtype)  # padding is zero after the norm
        self.proj = pack_linear(*scaled(mixer.proj, scale), dtype)
        self.mixer = mixer  # in fp32; only its position and the way it cuts are used
        del mixer.qkv, mixer.proj
        self.tables: dict[Grid, tuple[Tensor, Tensor | None, Tensor | None]] = {}

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        slots, kinds, bias = self.table(grid)
        qkv = linear(x, self.qkv, norm_eps=self.eps)
        mixed = attend_groups(qkv, self.heads, slots, self.padding, kinds, bias)
        return linear(mixed, self.proj, ADD, add=x)

    def table(self, grid: Grid) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return which tokens meet on a grid, which bias each group has, and the biases."""
        if grid not in self.tables:
            if len(self.tables) == KEPT_GRIDS:
                self.tables.pop(next(iter(self.tables)))
            self.tables[grid] = self._table(grid)
        return self.tables[grid]

    def _table(self, grid: Grid) -> tuple[Tensor, Tensor | None, Tensor | None]:
        slots = self.mixer.slots(grid).int().contiguous()
        bias = self._bias(grid)
        if bias is None:
            return slots, None, None
        if bias.ndim == 3:  # (h, n, n), the same for all groups
            bias = bias[None]
            kinds = torch.zeros(len(slots), dtype=torch.int32)
        else:  # (groups, h, n, n), of which few differ
            bias, kinds = bias.unique(dim=0, return_inverse=True)
        return slots, kinds.int().contiguous(), lane_bias(bias)

    def _bias(self, grid: Grid) -> Tensor | None:
        if isinstance(self.mixer, SelfAttention):
            return self.mixer.position.bias(self._queries(grid), grid)
        cut = self.mixer.cut.of(grid, self.mixer.window_size, self.mixer.shift)
        within = Grid(*cut.window)
        queries = self._queries(within)
        return cut.separate(self.mixer.position.bias(queries, within), like=queries)

    def _queries(self, grid: Grid) -> Tensor:
        """Return queries to ask a position with: only their number, precision and device count."""
        return torch.zeros(1, self.heads, grid.tokens, 1)


class FastLinear(nn.Module):
    """A linear layer with packed weights."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype):
        super().__init__()
        self.packed = pack_linear(layer.weight, layer.bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply and shift."""
        return linear(x, self.packed)


@dataclass(frozen=True)
class Affine:
    """Scale and shift of a LayerNorm, to be folded into the layer behind it; `eps` is None for other norms."""

    weight: Tensor
    bias: Tensor
    eps: float | None

    @classmethod
    def of(cls, norm: nn.Module, width: int) -> "Affine":
        """Read them off a norm; another norm keeps its own."""
        ones, zeros = torch.ones(width), torch.zeros(width)
        if type(norm) is not nn.LayerNorm or norm.normalized_shape != (width,):
            return cls(ones, zeros, None)
        return cls(
            ones if norm.weight is None else norm.weight.detach().float(),
            zeros if norm.bias is None else norm.bias.detach().float(),
            norm.eps,
        )

    def folded(self, layer: nn.Linear) -> tuple[Tensor, Tensor]:
        """Return weight and bias of a layer that takes its input before scale and shift."""
        weight = layer.weight.detach().float()
        bias = weight @ self.bias
        return weight * self.weight, bias if layer.bias is None else bias + layer.bias.detach().float()


def scaled(layer: nn.Linear, scale: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a layer with the LayerScale behind it."""
    weight, bias = layer.weight.detach().float(), None if layer.bias is None else layer.bias.detach().float()
    if isinstance(scale, LayerScale):
        gamma = scale.gamma.detach().float()
        return weight * gamma[:, None], None if bias is None else bias * gamma
    return weight, bias


def fast_block(block: Block, dtype: torch.dtype) -> tuple[FastBlock, list[str]]:
    """Return the fast form of a block, and for each branch that stays as it is, why."""
    kept: list[str] = []
    mixer: nn.Module = block.token_mixer
    reason = attention_refusal(block.norm1, mixer, block.scale1, dtype)
    if reason is None:
        assert isinstance(mixer, SelfAttention | WindowAttention) and isinstance(block.norm1, nn.LayerNorm)
        tokens: nn.Module = FastAttention(block.norm1, mixer, block.scale1, dtype)
    else:
        kept.append(f"token mixer: {reason}")
        tokens = PlainBranch(block.norm1, mixer, block.scale1)
    reason = mlp_refusal(block.channel_mixer, block.scale2, dtype)
    if reason is None:
        assert isinstance(block.channel_mixer, MLP)
        channels: nn.Module = FastMLP(block.norm2, block.channel_mixer, block.scale2, dtype)
    else:
        kept.append(f"channel mixer: {reason}")
        channels = PlainBranch(block.norm2, block.channel_mixer, block.scale2)
    return FastBlock(tokens, channels), kept


def attention_refusal(norm: nn.Module, mixer: nn.Module, scale: nn.Module, dtype: torch.dtype) -> str | None:
    """Say why a token mixer has no fast form."""
    if not isinstance(mixer, SelfAttention | WindowAttention) or type(mixer) not in (SelfAttention, WindowAttention):
        return f"{type(mixer).__name__} has no compiled form"
    if type(norm) is not nn.LayerNorm:
        return f"the norm before it is {type(norm).__name__}, not LayerNorm"
    if type(scale) not in (nn.Identity, LayerScale):
        return f"what scales it is {type(scale).__name__}"
    if type(mixer.position).rotate is not NoPosition.rotate:
        return "its position turns queries and keys"
    width = mixer.qkv.in_features // mixer.num_heads
    return "heads of odd width cannot be read in pairs" if dtype == torch.bfloat16 and width % 2 else None


def mlp_refusal(mixer: nn.Module, scale: nn.Module, dtype: torch.dtype) -> str | None:
    """Say why a channel mixer has no fast form."""
    if type(mixer) is not MLP or type(mixer.act) is not nn.GELU or mixer.act.approximate != "none":
        return f"{type(mixer).__name__} is not the MLP with an exact GELU"
    if type(scale) not in (nn.Identity, LayerScale):
        return f"what scales it is {type(scale).__name__}"
    odd = mixer.fc1.in_features % 2 or mixer.fc2.in_features % 2
    return "odd numbers of channels cannot be read in pairs" if dtype == torch.bfloat16 and odd else None
