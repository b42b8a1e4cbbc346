"""Fused stage of visual tokens, for CPU inference."""

import torch
from torch import Tensor, nn

from vitrail.fused.unsupported import NotConverted, Seats, check_parts, has_hooks
from vitrail.grid import Grid
from vitrail.native.casts import as_residual, cast
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.gemm import PackedLinear, linear, pack_linear
from vitrail.parts.attend import Attend
from vitrail.parts.merging import NoMerging
from vitrail.parts.regularisation import DropPath
from vitrail.parts.stages import Stage
from vitrail.parts.visual_tokens import (
    FilterTokenizer,
    KeepTokens,
    NoProjector,
    Projector,
    RecurrentTokenizer,
    TokenStep,
    VisualTokenAttention,
    VisualTransformerBlock,
)
from vitrail.shapes import Tokens

TOKENIZERS: dict[type[nn.Module], Seats] = {
    FilterTokenizer: {"groups": (nn.Linear,)},
    RecurrentTokenizer: {"filters": (nn.Linear,)},
    KeepTokens: {},
}
PROJECTORS: dict[type[nn.Module], Seats] = {
    Projector: {"q": (nn.Conv1d,), "k": (nn.Conv1d,), "attend": (Attend,)},
    NoProjector: {},
}
MIXER_SEATS: Seats = {"q": (nn.Linear,), "k": (nn.Linear,), "attend": (Attend,)}
BLOCK_SEATS: Seats = {
    "tokenizer": tuple(TOKENIZERS),
    "token_mixer": (VisualTokenAttention,),
    "projector": tuple(PROJECTORS),
    "fc1": (nn.Linear,),
    "fc2": (nn.Linear,),
    "drop_path": (DropPath,),
}


class FusedVisualTokenizer:
    """Tokens that are mixtures of the cells: `T = softmax_N(X F^T)^T X`, with filters F learned or predicted.

    Args:
        tokenizer: the module, of a known type.
        dtype: compute dtype.
    """

    def __init__(self, tokenizer: nn.Module, dtype: torch.dtype):
        check_parts(tokenizer, TOKENIZERS[type(tokenizer)])
        self.filters: Tensor | None = None
        self.predict: PackedLinear | None = None
        if isinstance(tokenizer, FilterTokenizer):
            self.filters = tokenizer.groups.weight.detach().to(dtype, copy=True)
        if isinstance(tokenizer, RecurrentTokenizer):
            self.predict = packed(tokenizer.filters, dtype)

    def __call__(self, cells: Tokens, tokens: Tensor | None) -> Tensor:
        """Return `(B, L, C)` tokens in fp32."""
        filters = self.filters
        if self.predict is not None:
            assert tokens is not None
            filters = linear(cast(tokens, cells.dtype), self.predict)
        if filters is None:
            assert tokens is not None
            return tokens
        weights = (cells @ filters.mT).float().softmax(dim=1).to(cells.dtype)
        return (weights.mT @ cells).float()


class FusedProjector:
    """Cells that read the tokens: `X + softmax_L(X W_Q (T W_K)^T / sqrt(C)) T`, without queries.

    X W_Q (T W_K)^T = X (T W_K W_Q^T)^T, so a product of both weights is applied to the few tokens; the weights are
    block diagonal, `groups` blocks.

    Args:
        projector: the module.
        dtype: compute dtype.
    """

    def __init__(self, projector: Projector, dtype: torch.dtype):
        check_parts(projector, PROJECTORS[Projector])
        q, k = (_blocks(conv) for conv in (projector.q, projector.k))  # (groups, out, in)
        if q.shape != k.shape:
            raise NotConverted("its queries and keys have other groups")
        scale = (q.shape[0] * q.shape[1]) ** -0.5
        self.both = (k.mT @ q * scale).float()  # (groups, in, in)

    def __call__(self, cells: Tokens, tokens: Tensor) -> Tensor:
        """Add to the cells."""
        groups, width, _ = self.both.shape
        parts = tokens.unflatten(2, (groups, width)).permute(2, 0, 1, 3).flatten(1, 2)  # (groups, B L, width)
        keys = (parts @ self.both).unflatten(1, tokens.shape[:2]).permute(1, 2, 0, 3).flatten(2)
        weights = (cells @ keys.to(cells.dtype).mT).float().softmax(dim=2).to(cells.dtype)
        return torch.baddbmm(cells, weights, tokens.to(cells.dtype))


class FusedVisualBlock:
    """`VisualTransformerBlock` on separate tokens, in fp32, and cells, in the compute dtype."""

    def __init__(self, block: VisualTransformerBlock, dtype: torch.dtype):
        check_parts(block, BLOCK_SEATS)
        check_parts(block.token_mixer, MIXER_SEATS)
        q, k = block.token_mixer.q, block.token_mixer.k
        for layer in (q, k, block.fc1, block.fc2):
            if layer.bias is not None:
                raise NotConverted("a linear layer has a bias")
        self.tokenizer = FusedVisualTokenizer(block.tokenizer, dtype)
        both = torch.cat([q.weight.detach().float() * q.out_features**-0.5, k.weight.detach().float()])
        self.queries_keys = pack_linear(both, None, dtype)
        self.fc1, self.fc2 = packed(block.fc1, dtype), packed(block.fc2, dtype)
        self.projector = FusedProjector(block.projector, dtype) if isinstance(block.projector, Projector) else None

    def __call__(self, cells: Tokens, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Update cells and tokens."""
        dtype = cells.dtype
        tokens = self.tokenizer(cells, tokens)
        q, k = linear(tokens.to(dtype), self.queries_keys).float().chunk(2, dim=2)
        tokens = tokens + (q @ k.mT).softmax(dim=2) @ tokens
        inner = linear(tokens.to(dtype), self.fc1).relu_()
        tokens = tokens + linear(inner, self.fc2, dtype=RESIDUAL[dtype])
        return (cells if self.projector is None else self.projector(cells, tokens)), tokens


class FusedVisualStage(nn.Module):
    """A stage of visual Transformers: `(x, grid) -> (x, grid)`; cells and tokens are joined once, at its end."""

    def __init__(self, stage: Stage, dtype: torch.dtype):
        super().__init__()
        assert isinstance(stage.entry, TokenStep)
        check_parts(stage.entry, {"tokenizer": (FilterTokenizer,)})
        self.dtype, self.tokenizer = dtype, FusedVisualTokenizer(stage.entry.tokenizer, dtype)
        self.blocks = [FusedVisualBlock(block, dtype) for block in stage.blocks]  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Make tokens and transform them; the grid must have no prefix."""
        assert grid.prefix == 0, grid
        cells = cast(x.contiguous(), self.dtype)
        tokens = self.tokenizer(cells, None)
        for block in self.blocks:
            cells, tokens = block(cells, tokens)
        residual = RESIDUAL[self.dtype]
        joined = torch.cat([as_residual(tokens, residual), as_residual(cells, residual)], dim=1)
        return joined, grid._replace(prefix=tokens.shape[1])


def fuse_visual_stage(stage: Stage, dtype: torch.dtype) -> FusedVisualStage:
    """Return the fused stage of visual Transformers.

    Raises:
        NotConverted: a block or one of its parts is unknown.
    """
    entries, kinds = type(stage.entry), {type(block) for block in stage.blocks}
    if entries is not TokenStep or kinds != {VisualTransformerBlock} or type(stage.exit) is not NoMerging:
        names = ", ".join(sorted(kind.__name__ for kind in {entries, *kinds, type(stage.exit)}))
        raise NotConverted(f"its parts are {names}")
    if has_hooks(stage):
        raise NotConverted("it has hooks or a forward of its own")
    return FusedVisualStage(stage, dtype)


def packed(layer: nn.Linear, dtype: torch.dtype) -> PackedLinear:
    """Pack a layer."""
    return pack_linear(layer.weight, layer.bias, dtype)


def _blocks(conv: nn.Conv1d) -> Tensor:
    """Return the diagonal blocks of a grouped convolution of one cell, `(groups, out, in)` in fp64.

    Raises:
        NotConverted: it has a bias or another window.
    """
    if conv.bias is not None or conv.kernel_size != (1,) or conv.stride != (1,) or conv.padding != (0,):
        raise NotConverted("a convolution has a bias or another window than one cell")
    return conv.weight.detach().double()[:, :, 0].unflatten(0, (conv.groups, -1))
