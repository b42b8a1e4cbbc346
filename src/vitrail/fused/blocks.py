"""Residual block as two fused branches, each returning `x + scale(mixer(norm(x)))`.

Weights of a LayerNorm, the queries' 1 / sqrt(d) and a LayerScale are folded into the linear layers next to them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.fused.table import MIXERS, unsupported_reason
from vitrail.fused.unsupported import NotConverted, has_hooks, require_libraries
from vitrail.grid import Grid
from vitrail.native.casts import as_residual, cast
from vitrail.native.dtypes import PRODUCTS, RESIDUAL
from vitrail.native.layer_norm import layer_norm
from vitrail.native.norms import LaneNorm
from vitrail.parts.blocks import Block
from vitrail.parts.regularisation import DropPath
from vitrail.parts.res_post_norm_block import ResPostNormBlock
from vitrail.parts.stream_norm_block import StreamNormBlock
from vitrail.shapes import Tokens

BRANCHES = {"token mixer": ("norm1", "token_mixer", "scale1"), "channel mixer": ("norm2", "channel_mixer", "scale2")}
"""Child names of each residual branch of a block."""

POST_NORM_BRANCHES = {
    "token mixer": ("scale1", "token_mixer", "norm1"),
    "channel mixer": ("scale2", "channel_mixer", "norm2"),
}
"""The same for a residual post-norm block: the identity before each mixer, and the norm in the place of the scale."""

BLOCK_PARTS = {name for names in BRANCHES.values() for name in names} | {"drop_path"}


class FusedBlock(nn.Module):
    """A block of two branches, `(x, grid) -> x`, each of which adds itself."""

    def __init__(self, tokens: nn.Module, channels: nn.Module):
        super().__init__()
        self.tokens, self.channels = tokens, channels

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix tokens, then channels.

        Raises:
            VitrailError: the layout is not a `Grid`; native code knows no padding, memory or cache.
        """
        if type(grid) is not Grid:
            raise VitrailError(
                f"An optimized model computes tokens of images (Grid), got {type(grid).__name__}.\n"
                "Use the model that it was made from."
            )
        if x.dtype in PRODUCTS:
            return self.mix(x, grid)
        return cast(self.mix(as_residual(x, RESIDUAL[x.dtype]), grid), x.dtype)  # from a module in the compute dtype

    def mix(self, x: Tokens, grid: Grid) -> Tensor:
        """Apply both branches to the residual."""
        return self.channels(self.tokens(x, grid), grid)


class FusedStreamNormBlock(FusedBlock):
    """A block whose residual itself is normalised between the branches.

    Args:
        tokens: first branch.
        norm: the norm between.
        channels: second branch, without a norm of its own.
    """

    def __init__(self, tokens: nn.Module, norm: nn.LayerNorm, channels: nn.Module):
        super().__init__(tokens, channels)
        self.norm = LaneNorm.of(norm)

    def mix(self, x: Tokens, grid: Grid) -> Tensor:
        """Apply both branches and the norm to the residual."""
        return self.channels(layer_norm(self.tokens(x, grid), self.norm), grid)


class UnfusedBranch(nn.Module):
    """An unconverted branch in the compute dtype; the sum is stored as the residual."""

    def __init__(self, norm: nn.Module, mixer: nn.Module, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.norm, self.mixer, self.scale, self.dtype = norm, mixer, scale, dtype

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        return as_residual(x + self.scale(self.mixer(self.norm(cast(x, self.dtype)), grid)), x.dtype)


def block_unsupported_reason(block: Block, parts: AbstractSet[str] = BLOCK_PARTS) -> str | None:
    """Return why a block is not two residual branches with drop path and nothing else, or None."""
    unknown = (block._modules.keys() ^ parts) | block._parameters.keys() | block._buffers.keys()
    if unknown:
        return "unknown part " + ", ".join(sorted(unknown))
    if type(block.drop_path) is not DropPath or has_hooks(block.drop_path):
        return f"its drop_path is {type(block.drop_path).__name__}, or has hooks"
    return "it has a forward of its own" if "forward" in vars(block) else None


def fuse_block(block: Block, dtype: torch.dtype, unconverted: Counter[str], targets: Sequence[str]) -> FusedBlock:
    """Return the fused block.

    Args:
        block: block to convert.
        dtype: compute dtype.
        unconverted: counts the branches without a fused operation, by reason.
        targets: columns of `MIXERS`; the first with an operation for a mixer is used.

    Raises:
        NotConverted: the block has unknown parts.
    """
    return FusedBlock(*fuse_branches(block, dtype, unconverted, targets))


def fuse_post_norm_block(
    block: ResPostNormBlock, dtype: torch.dtype, unconverted: Counter[str], targets: Sequence[str]
) -> FusedBlock:
    """Return the fused block, whose branches are `x + norm(mixer(x))`.

    Raises:
        NotConverted: the block has unknown parts.
    """
    if not type(block.scale1) is type(block.scale2) is nn.Identity:
        raise NotConverted("it has a scale1 or scale2, which its forward does not call")
    return FusedBlock(*fuse_branches(block, dtype, unconverted, targets, branches=POST_NORM_BRANCHES))


def fuse_stream_norm_block(
    block: StreamNormBlock, dtype: torch.dtype, unconverted: Counter[str], targets: Sequence[str]
) -> FusedStreamNormBlock:
    """Return the fused block, whose second branch reads and extends the normalised residual.

    Raises:
        NotConverted: the block has unknown parts, or its norm is no LayerNorm over channels.
    """
    norm = block.norm2
    if has_hooks(norm):
        raise NotConverted("its norm2 has hooks or a forward of its own")
    if type(norm) is not nn.LayerNorm or len(norm.normalized_shape) != 1:
        raise NotConverted(f"its norm2 is {type(norm).__name__}, not LayerNorm over channels")
    require_libraries("layer_norm")
    branches = {"token mixer": BRANCHES["token mixer"], "channel mixer": ("", "channel_mixer", "scale2")}
    tokens, channels = fuse_branches(block, dtype, unconverted, targets, branches=branches)
    return FusedStreamNormBlock(tokens, norm, channels)


def fuse_branches(
    block: Block,
    dtype: torch.dtype,
    unconverted: Counter[str],
    targets: Sequence[str],
    parts: AbstractSet[str] = BLOCK_PARTS,
    branches: Mapping[str, tuple[str, ...]] = BRANCHES,
) -> list[nn.Module]:
    """Return the two fused branches of a block.

    Args:
        block: block to convert.
        dtype: compute dtype.
        unconverted: counts the branches without a fused operation, by reason.
        targets: columns of `MIXERS`.
        parts: names of its children; those outside of its branches are the caller's to compute.
        branches: names of the norm ("" if there is none), mixer and scale of each branch.

    Raises:
        NotConverted: the block has unknown parts.
    """
    reason = block_unsupported_reason(block, parts)
    if reason is not None:
        raise NotConverted(reason)
    return [
        fuse_branch(place, [getattr(block, n) if n else nn.Identity() for n in names], dtype, unconverted, targets)
        for place, names in branches.items()
    ]


def fuse_branch(
    place: str, parts: Sequence[nn.Module], dtype: torch.dtype, unconverted: Counter[str], targets: Sequence[str]
) -> nn.Module:
    """Return a fused branch, or the branch in PyTorch and its reason in `unconverted`."""
    norm, mixer, scale = parts
    for target in targets:
        try:
            reason = unsupported_reason(mixer, target)
            if reason is not None:
                raise NotConverted(reason)
            if has_hooks(norm, scale):
                raise NotConverted("its norm or scale has hooks or a forward of its own")
            return getattr(MIXERS[type(mixer)], target).of(norm, mixer, scale, dtype)
        except NotConverted as error:
            unconverted[f"{place}: {error}"] += 1
    return UnfusedBranch(norm, mixer, scale, dtype)
