"""The two blocks of XCiT: three branches on patches, and class attention in which patches move too."""

import torch
from torch import Tensor, nn

from vitrail.layouts import Layout
from vitrail.parts.blocks import Block
from vitrail.shapes import Tokens


class LocalBlock(Block):
    """A block with a second token mixer between the two branches.

    x = x + scale1(token_mixer(norm1(x)))
    x = x + scale3(local_mixer(norm3(x)))
    x = x + scale2(channel_mixer(norm2(x)))

    "XCiT: Cross-Covariance Image Transformers", section 3.4.

    Args:
        block: norms, mixers, scales and drop path of the outer branches.
        norm3: before the local mixer.
        local_mixer: `(x, grid) -> x`.
        scale3: factor of the local mixer's branch.
    """

    def __init__(self, block: Block, norm3: nn.Module, local_mixer: nn.Module, scale3: nn.Module):
        rate, scales = block.drop_path.rate, (block.scale1, block.scale2)
        super().__init__(block.norm1, block.token_mixer, block.norm2, block.channel_mixer, rate, *scales)
        self.norm3, self.local_mixer, self.scale3 = norm3, local_mixer, scale3

    def forward(self, x: Tokens, grid: Layout) -> Tensor:
        """Mix all tokens, then neighbours, then channels."""
        x = x + self.drop_path(self.scale1(self.token_mixer(self.norm1(x), grid)))
        x = x + self.drop_path(self.scale3(self.local_mixer(self.norm3(x), grid)))
        return x + self.drop_path(self.scale2(self.channel_mixer(self.norm2(x), grid)))


class ClassBlock(Block):
    """Class attention as XCiT's released weights were trained: cells are scaled and normalised on the way.

    u = norm1(x); x = norm2(x + scale1(mix(u) for the prefix, u for cells))
    prefix = prefix + scale2(channel_mixer(prefix)); cells = 2 cells

    The paper names CaiT's class attention, in which cells stay as they are.
    """

    def forward(self, x: Tokens, grid: Layout) -> Tensor:
        """Update the prefix from all tokens."""
        u, p = self.norm1(x), grid.prefix
        mixed = torch.cat([self.token_mixer(u, grid)[:, :p], u[:, p:]], dim=1)
        x = self.normalise(x + self.drop_path(self.scale1(mixed)), p)
        prefix, cells = x[:, :p], x[:, p:]
        prefix = prefix + self.drop_path(self.scale2(self.channel_mixer(prefix, grid)))
        return torch.cat([prefix, cells + self.drop_path(cells)], dim=1)

    def normalise(self, x: Tensor, prefix: int) -> Tensor:
        """Normalise all tokens."""
        return self.norm2(x)


class PrefixNormClassBlock(ClassBlock):
    """The same with cells that are not normalised (XCiT-N)."""

    def normalise(self, x: Tensor, prefix: int) -> Tensor:
        """Normalise the prefix."""
        return torch.cat([self.norm2(x[:, :prefix]), x[:, prefix:]], dim=1)
