"""From pictures to tokens: cut into patches, put prefix tokens in front, add positions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.grid import Grid, to_grid
from vitrail.shapes import Image, Tokens


class PatchEmbedding(nn.Module):
    """Project each `p x p` patch to one token.

    x_i = E patch_i + b

    "An Image is Worth 16x16 Words", equation 1. A picture that is not a multiple of `p` is padded with zeros at the right
    and bottom, so every size works; torchvision would drop the remainder.

    Args:
        in_channels: channels of the picture.
        dim: channels C of a token.
        patch_size: side p of a patch in pixels.
        norm: what follows the projection (Swin: LayerNorm).

    Example:
        >>> x, grid = PatchEmbedding(3, 96, 4)(torch.zeros(1, 3, 30, 32))
        >>> x.shape, grid
        (torch.Size([1, 64, 96]), Grid(h=8, w=8, prefix=0))
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int, norm: nn.Module | None = None):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, dim, patch_size, patch_size)
        self.norm = norm or nn.Identity()
        nn.init.trunc_normal_(self.proj.weight, std=self.proj.weight[0].numel() ** -0.5)
        nn.init.zeros_(self.proj.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Cut and project."""
        y, x = images.shape[-2:]
        images = pad(images, (0, -x % self.patch_size, 0, -y % self.patch_size))
        cells = self.proj(images).permute(0, 2, 3, 1)  # (B, C, h, w) -> (B, h, w, C)
        tokens, grid = to_grid(cells)
        return self.norm(tokens), grid


class PrefixTokens(nn.Module):
    """Put learned tokens that sit nowhere (class, distillation) in front of the cells.

    Args:
        dim: channels C.
        count: how many tokens.
    """

    def __init__(self, dim: int, count: int = 1):
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(1, count, dim))
        nn.init.normal_(self.tokens, std=1e-6)

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Prepend the tokens and count them in the grid."""
        tokens = self.tokens.to(x.dtype).expand(x.shape[0], -1, -1)
        return torch.cat([tokens, x], dim=1), grid._replace(prefix=grid.prefix + tokens.shape[1])


class Embedding(nn.Module):
    """Patches first, then steps `(x, grid) -> (x, grid)` in order: prefix tokens, positions.

    Args:
        patches: `images -> (x, grid)`.
        steps: what happens to the tokens before the first stage.
    """

    def __init__(self, patches: nn.Module, steps: Sequence[nn.Module] = ()):
        super().__init__()
        self.patches = patches
        self.steps = nn.ModuleList(steps)

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Turn pictures into tokens and their grid."""
        x, grid = self.patches(images)
        for step in self.steps:
            x, grid = step(x, grid)
        return x, grid
