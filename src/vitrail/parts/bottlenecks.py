"""Bottlenecks of residual networks: a 3 x 3 convolution between two 1 x 1, as blocks `(x, grid) -> x`.

The first of a stage changes the grid and the channels, so it is the stage's entry, `(x, grid) -> (x, grid)`, and
projects its shortcut. Two choices give four kinds: the position of norm and ReLU, and the shortcut.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.convolutions import SameStdConv2d, StdConv2d, to_map, to_tokens
from vitrail.parts.norms import GroupNormReLU, MapGroupNorm
from vitrail.parts.regularisation import DropPath
from vitrail.shapes import Tokens

GROUPS = 32


class Bottleneck(nn.Module, ABC):
    """Three convolutions, each with its norm: to a quarter of the channels, across neighbours, back to the full width.

    Args:
        dim: channels before.
        out_dim: channels after.
        stride: step of the 3 x 3 convolution.
        drop_path: rate at which a sample skips the branch while training.
    """

    padded: type[StdConv2d] = StdConv2d
    """The convolution for 3 x 3, which says how a map is padded; 1 x 1 needs no padding."""

    def __init__(self, dim: int, out_dim: int, stride: int = 1, drop_path: float = 0.0):
        super().__init__()
        inner = out_dim // 4
        self.conv1 = StdConv2d(dim, inner, 1)
        self.conv2 = self.padded(inner, inner, 3, stride)
        self.conv3 = StdConv2d(inner, out_dim, 1)
        self.norm1, self.norm2, self.norm3 = self.norms(dim, inner, out_dim)
        self.drop_path = DropPath(drop_path)

    @abstractmethod
    def norms(self, dim: int, inner: int, out_dim: int) -> tuple[MapGroupNorm, MapGroupNorm, MapGroupNorm]:
        """Make one norm for each convolution, for its channels."""


class PreActivation(Bottleneck):
    """Norm and ReLU before each convolution; no activation on the shortcut.

    "Identity Mappings in Deep Residual Networks", section 4, with the stride on the 3 x 3.
    """

    def norms(self, dim: int, inner: int, out_dim: int) -> tuple[MapGroupNorm, MapGroupNorm, MapGroupNorm]:
        """Make the norms before the convolutions."""
        return GroupNormReLU(GROUPS, dim), GroupNormReLU(GROUPS, inner), GroupNormReLU(GROUPS, inner)

    def branch(self, activated: Tensor) -> Tensor:
        """Return the residual branch, from the map after the first norm."""
        return self.drop_path(self.conv3(self.norm3(self.conv2(self.norm2(self.conv1(activated))))))


class PostActivation(Bottleneck):
    """Norm after each convolution and ReLU after the sum, padded as TensorFlow pads: the ResNet of ViT's hybrids.

    "Deep Residual Learning for Image Recognition", section 4.1, with the stride on the 3 x 3, group normalisation and
    standardised weights. The last norm starts at zero, so that each block starts as the identity.
    """

    padded = SameStdConv2d

    def norms(self, dim: int, inner: int, out_dim: int) -> tuple[MapGroupNorm, MapGroupNorm, MapGroupNorm]:
        """Make the norms that stand after the convolutions."""
        last = MapGroupNorm(GROUPS, out_dim)
        nn.init.zeros_(last.weight)
        return GroupNormReLU(GROUPS, inner), GroupNormReLU(GROUPS, inner), last

    def branch(self, cells: Tensor) -> Tensor:
        """Return the residual branch."""
        return self.drop_path(self.norm3(self.conv3(self.norm2(self.conv2(self.norm1(self.conv1(cells)))))))


class Projected(Bottleneck):
    """A bottleneck whose shortcut is a 1 x 1 convolution with the stride of the branch."""

    def __init__(self, dim: int, out_dim: int, stride: int = 1, drop_path: float = 0.0):
        super().__init__(dim, out_dim, stride, drop_path)
        self.proj = StdConv2d(dim, out_dim, 1, stride)


class PreActivationBottleneck(PreActivation):
    """x + branch(relu(norm(x))), on one grid: `(x, grid) -> x`."""

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch; the grid must have no prefix."""
        cells = to_map(x, grid)
        return to_tokens(cells + self.branch(self.norm1(cells)))[0]


class PreActivationEntry(Projected, PreActivation):
    """proj(a) + branch(a), a = relu(norm(x)): `(x, grid) -> (x, grid)`."""

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Project the shortcut and add the branch; the grid must have no prefix."""
        activated = self.norm1(to_map(x, grid))
        return to_tokens(self.proj(activated) + self.branch(activated))


class PostActivationBottleneck(PostActivation):
    """relu(x + branch(x)), on one grid: `(x, grid) -> x`."""

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch; the grid must have no prefix."""
        cells = to_map(x, grid)
        return to_tokens((cells + self.branch(cells)).relu_())[0]


class PostActivationEntry(Projected, PostActivation):
    """relu(norm(proj(x)) + branch(x)): `(x, grid) -> (x, grid)`."""

    def __init__(self, dim: int, out_dim: int, stride: int = 1, drop_path: float = 0.0):
        super().__init__(dim, out_dim, stride, drop_path)
        self.proj_norm = MapGroupNorm(GROUPS, out_dim)

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Project the shortcut and add the branch; the grid must have no prefix."""
        cells = to_map(x, grid)
        return to_tokens((self.proj_norm(self.proj(cells)) + self.branch(cells)).relu_())
