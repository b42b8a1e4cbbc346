"""From images to tokens: cut into patches, put prefix tokens in front, add positions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.parts.convolutions import channels_last, to_map, to_tokens
from vitrail.shapes import Image, Tokens


class PatchEmbedding(nn.Module):
    """Project each `p x p` patch to one token.

    x_i = E patch_i + b

    "An Image is Worth 16x16 Words", equation 1. An image that is not a multiple of `p` is padded with zeros at the
    right and bottom, so every size works; torchvision would drop the remainder.

    Args:
        in_channels: channels of the image.
        dim: channels C of a token.
        patch_size: side p of a patch in pixels.
        norm: norm after the projection (Swin: LayerNorm).

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
        tokens, grid = to_tokens(self.proj(channels_last(images)))
        return self.norm(tokens), grid


class OverlappingPatchEmbedding(nn.Module):
    """Project patches that share their borders: a strided convolution whose filters are wider than its step.

    "MetaFormer Is Actually What You Need for Vision", table 1 (7 x 7, stride 4; padding 2 in the code).

    Args:
        in_channels: channels of the image.
        dim: channels C of a token.
        patch_size: side of a patch in pixels.
        stride: step between two patches.
        padding: zeros on every side of the image.

    Raises:
        VitrailError: if the padded image is smaller than one patch.

    Example:
        >>> x, grid = OverlappingPatchEmbedding(3, 64, patch_size=7, stride=4, padding=2)(torch.zeros(1, 3, 32, 30))
        >>> x.shape, grid
        (torch.Size([1, 56, 64]), Grid(h=8, w=7, prefix=0))
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int, stride: int, padding: int):
        super().__init__()
        self.smallest = patch_size - 2 * padding
        self.proj = nn.Conv2d(in_channels, dim, patch_size, stride, padding)
        nn.init.trunc_normal_(self.proj.weight, std=0.02)
        nn.init.zeros_(self.proj.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Cut and project."""
        self.check(images)
        return to_tokens(self.proj(channels_last(images)))

    def check(self, images: Image) -> None:
        """Refuse images that hold no patch."""
        y, x = images.shape[-2:]
        if min(y, x) < self.smallest:
            raise VitrailError(
                f"The image has {y} x {x} pixels; this model needs at least {self.smallest} x {self.smallest}.\n"
                "Enlarge it, or choose a model with smaller patches."
            )


class ConvTokenizer(nn.Module):
    """Two strided 3 x 3 convolutions, one after the other, then a norm: patches of 4 pixels that share their borders.

    "Neighborhood Attention Transformer": no layer between the two. Each halves a side, rounded up,
    so every size works. Filters begin as PyTorch draws them, as the authors' do.

    Args:
        in_channels: channels of the image.
        dim: channels C of a token; half as many lie between the two.

    Example:
        >>> x, grid = ConvTokenizer(3, 64)(torch.zeros(1, 3, 32, 30))
        >>> x.shape, grid
        (torch.Size([1, 64, 64]), Grid(h=8, w=8, prefix=0))
    """

    def __init__(self, in_channels: int, dim: int):
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(in_channels, dim // 2, kernel_size=3, stride=2, padding=1),
            nn.Conv2d(dim // 2, dim, kernel_size=3, stride=2, padding=1),
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Convolve and normalise."""
        tokens, grid = to_tokens(self.proj(channels_last(images)))
        return self.norm(tokens), grid


class ConvStem(nn.Module):
    """Stem of a residual network: convolution, norm, pooling.

    Args:
        conv: the first convolution, `images -> map`.
        norm: the norm after it, `map -> map`.
        pool: downsampling, `map -> map`.
    """

    def __init__(self, conv: nn.Module, norm: nn.Module, pool: nn.Module):
        super().__init__()
        self.conv, self.norm, self.pool = conv, norm, pool

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Turn images into the tokens of a coarse map."""
        return to_tokens(self.pool(self.norm(self.conv(channels_last(images)))))


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


class MapPatches(nn.Module):
    """Cut a map of tokens into patches, as if it were an image: `(x, grid) -> (x, grid)`.

    "An Image is Worth 16x16 Words", section 3.1, "Hybrid Architecture".

    Args:
        dim: channels C before.
        out_dim: channels after.
        patch_size: side p of a patch, in cells.
        norm: what follows the projection; none by default.
    """

    def __init__(self, dim: int, out_dim: int, patch_size: int, norm: nn.Module | None = None):
        super().__init__()
        self.patches = PatchEmbedding(dim, out_dim, patch_size, norm)

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Cut and project; the grid must have no prefix."""
        return self.patches(to_map(x, grid))


class NormStep(nn.Module):
    """A norm as a step `(x, grid) -> (x, grid)`, such as the one after MetaFormer's stem.

    Args:
        norm: `x -> x`.
    """

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Normalise."""
        return self.norm(x), grid


class TokenSteps(nn.ModuleList):
    """Several `(x, grid) -> (x, grid)` in order, as one."""

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Take each step."""
        for step in self:
            x, grid = step(x, grid)
        return x, grid


class Embedding(nn.Module):
    """Patches first, then steps `(x, grid) -> (x, grid)` in order: prefix tokens, positions.

    Args:
        patches: `images -> (x, grid)`.
        steps: layers on the tokens before the first stage.
    """

    def __init__(self, patches: nn.Module, steps: Sequence[nn.Module] = ()):
        super().__init__()
        self.patches = patches
        self.steps = TokenSteps(steps)

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Turn images into tokens and their grid."""
        return self.steps(*self.patches(images))
