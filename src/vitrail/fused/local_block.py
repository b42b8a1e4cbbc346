"""Fused block with a local mixer between its branches (XCiT), for CPU inference."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitrail.fused.blocks import BLOCK_PARTS, BRANCHES, FusedBlock, fuse_branches
from vitrail.grid import Grid
from vitrail.parts.xcit_blocks import LocalBlock
from vitrail.shapes import Tokens

LOCAL_BRANCHES = {
    "token mixer": BRANCHES["token mixer"],
    "local mixer": ("norm3", "local_mixer", "scale3"),
    "channel mixer": BRANCHES["channel mixer"],
}
"""Child names of each residual branch of a local block."""


class FusedLocalBlock(FusedBlock):
    """A block of three branches: tokens, neighbours, channels."""

    def __init__(self, tokens: nn.Module, local: nn.Module, channels: nn.Module):
        super().__init__(tokens, channels)
        self.local = local

    def mix(self, x: Tokens, grid: Grid) -> Tensor:
        """Apply the branches to the residual."""
        return self.channels(self.local(self.tokens(x, grid), grid), grid)


def fuse_local_block(
    block: LocalBlock, dtype: torch.dtype, unconverted: Counter[str], targets: Sequence[str]
) -> FusedLocalBlock:
    """Return the fused block.

    Raises:
        NotConverted: the block has unknown parts.
    """
    parts = BLOCK_PARTS | set(LOCAL_BRANCHES["local mixer"])
    return FusedLocalBlock(*fuse_branches(block, dtype, unconverted, targets, parts, LOCAL_BRANCHES))
