"""Residual block: token mixer, then channel mixer."""

import torch
from torch import Tensor, nn

from vitrail.layouts import Layout
from vitrail.parts.regularisation import DropPath, LayerScale
from vitrail.shapes import Tokens


class Block(nn.Module):
    """The MetaFormer block, norm first.

    x = x + drop(scale1(token_mixer(norm1(x)))); x = x + drop(scale2(channel_mixer(norm2(x))))

    "MetaFormer Is Actually What You Need for Vision", section 3.1.

    Args:
        norm1: before the token mixer.
        token_mixer: `(x, grid) -> x`.
        norm2: before the channel mixer.
        channel_mixer: `(x, grid) -> x`.
        drop_path: rate at which a sample skips a branch while training.
        scale1: scale of the token mixer's residual branch (LayerScale, or None).
        scale2: the same for the channel mixer.
    """

    def __init__(
        self,
        norm1: nn.Module,
        token_mixer: nn.Module,
        norm2: nn.Module,
        channel_mixer: nn.Module,
        drop_path: float = 0.0,
        scale1: nn.Module | None = None,
        scale2: nn.Module | None = None,
    ):
        super().__init__()
        self.norm1, self.token_mixer, self.scale1 = norm1, token_mixer, scale1 or nn.Identity()
        self.norm2, self.channel_mixer, self.scale2 = norm2, channel_mixer, scale2 or nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix tokens, then channels."""
        x = x + self.drop_path(self.scale1(self.token_mixer(self.norm1(x), grid)))
        return x + self.drop_path(self.scale2(self.channel_mixer(self.norm2(x), grid)))


class PrefixBlock(Block):
    """The same block for prefix tokens alone: cells are read by the token mixer and stay as they are.

    "Going deeper with Image Transformers", section 3: class-attention layers.
    """

    def forward(self, x: Tokens, grid: Layout) -> Tensor:
        """Update the prefix, first from all tokens, then token by token."""
        mixed = self.scale1(self.token_mixer(self.norm1(x), grid)[:, : grid.prefix])
        prefix = x[:, : grid.prefix] + self.drop_path(mixed)
        prefix = prefix + self.drop_path(self.scale2(self.channel_mixer(self.norm2(prefix), grid)))
        return torch.cat([prefix, x[:, grid.prefix :]], dim=1)


class ResScaleBlock(Block):
    """Norm-first block with a learned factor for each channel of the shortcut.

    x = r1 * x + drop(token_mixer(norm1(x))); x = r2 * x + drop(channel_mixer(norm2(x)))

    "NormFormer", section 2, used by "MetaFormer Baselines for Vision" in the last two stages. Factors start at 1.

    Args:
        dim: channels C.
        norm1: before the token mixer.
        token_mixer: `(x, grid) -> x`.
        norm2: before the channel mixer.
        channel_mixer: `(x, grid) -> x`.
        drop_path: probability of dropping a branch of one sample in training.
    """

    def __init__(
        self,
        dim: int,
        norm1: nn.Module,
        token_mixer: nn.Module,
        norm2: nn.Module,
        channel_mixer: nn.Module,
        drop_path: float = 0.0,
    ):
        super().__init__(norm1, token_mixer, norm2, channel_mixer, drop_path)
        self.res_scale1, self.res_scale2 = LayerScale(dim, 1.0), LayerScale(dim, 1.0)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix tokens, then channels."""
        x = self.res_scale1(x) + self.drop_path(self.token_mixer(self.norm1(x), grid))
        return self.res_scale2(x) + self.drop_path(self.channel_mixer(self.norm2(x), grid))


class ConvNeXtBlock(nn.Module):
    """Block of one residual branch: token mixer, norm, channel mixer.

    x = x + drop(scale(channel_mixer(norm(token_mixer(x)))))

    "A ConvNet for the 2020s", section 2.6.

    Args:
        token_mixer: `(x, grid) -> x`.
        norm: between the two mixers.
        channel_mixer: `(x, grid) -> x`.
        drop_path: probability of dropping the branch of one sample in training.
        scale: applied to the branch (LayerScale); the identity by default.
    """

    def __init__(
        self,
        token_mixer: nn.Module,
        norm: nn.Module,
        channel_mixer: nn.Module,
        drop_path: float = 0.0,
        scale: nn.Module | None = None,
    ):
        super().__init__()
        self.token_mixer, self.norm, self.channel_mixer = token_mixer, norm, channel_mixer
        self.scale, self.drop_path = scale or nn.Identity(), DropPath(drop_path)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix tokens, then channels, and add."""
        return x + self.drop_path(self.scale(self.channel_mixer(self.norm(self.token_mixer(x, grid)), grid)))
