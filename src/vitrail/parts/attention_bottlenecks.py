"""Bottlenecks with batch normalisation whose 3 x 3 convolution may be attention."""

from collections.abc import Callable

from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.convolutions import to_map, to_tokens
from vitrail.parts.regularisation import DropPath
from vitrail.shapes import Tokens

Mixer = Callable[[int], nn.Module]
"""Makes the token mixer `(x, grid) -> x` of a bottleneck from its inner width."""


class AttentionBottleneck(nn.Module):
    """relu(x + norm3(conv3(relu(norm2(mix(relu(norm1(conv1(x)))))))), on one grid: `(x, grid) -> x`.

    "Deep Residual Learning for Image Recognition", section 4.1, with `mix` a 3 x 3 convolution; "Bottleneck
    Transformers for Visual Recognition", figure 3, with attention in its place.

    Args:
        dim: channels before.
        out_dim: channels after; the inner width is a quarter.
        mixer: makes the attention; a 3 x 3 convolution by default.
        stride: step of the convolution; after attention, the side of an average pooling (a remainder is pooled alone).
        drop_path: probability of dropping the branch of one sample in training.
        act: activation in place of the ReLU.
    """

    def __init__(
        self,
        dim: int,
        out_dim: int,
        mixer: Mixer | None = None,
        stride: int = 1,
        drop_path: float = 0.0,
        act: nn.Module | None = None,
    ):
        super().__init__()
        inner = out_dim // 4
        self.act = act or nn.ReLU()
        self.conv1, self.norm1 = nn.Conv2d(dim, inner, 1, bias=False), nn.BatchNorm2d(inner)
        if mixer is None:
            self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        else:
            self.token_mixer, self.pool = mixer(inner), nn.AvgPool2d(stride, ceil_mode=True)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv3, self.norm3 = nn.Conv2d(inner, out_dim, 1, bias=False), nn.BatchNorm2d(out_dim)
        self.drop_path = DropPath(drop_path)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch; the grid must have no prefix."""
        cells = to_map(x, grid)
        return to_tokens(self.act(cells + self.branch(cells)))[0]

    def branch(self, cells: Tensor) -> Tensor:
        """Return the residual branch."""
        inner = self.act(self.norm1(self.conv1(cells)))
        mixed = self.conv2(inner) if hasattr(self, "conv2") else self.mix(inner)
        return self.drop_path(self.norm3(self.conv3(self.act(self.norm2(mixed)))))

    def mix(self, inner: Tensor) -> Tensor:
        """Attend, then pool."""
        tokens, grid = to_tokens(inner)
        return self.pool(to_map(self.token_mixer(tokens, grid), grid))


class AttentionEntry(AttentionBottleneck):
    """The first bottleneck of a stage, with a projected shortcut: `(x, grid) -> (x, grid)`."""

    def __init__(
        self,
        dim: int,
        out_dim: int,
        mixer: Mixer | None = None,
        stride: int = 1,
        drop_path: float = 0.0,
        act: nn.Module | None = None,
    ):
        super().__init__(dim, out_dim, mixer, stride, drop_path, act)
        self.proj, self.proj_norm = nn.Conv2d(dim, out_dim, 1, stride, bias=False), nn.BatchNorm2d(out_dim)
        nn.init.kaiming_normal_(self.proj.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Project the shortcut and add the branch; the grid must have no prefix."""
        cells = to_map(x, grid)
        return to_tokens(self.act(self.proj_norm(self.proj(cells)) + self.branch(cells)))


class StridedAttentionEntry(AttentionEntry):
    """The first bottleneck of a stage whose attention takes the stride itself, by fewer queries.

    timm's HaloNets: the mixer returns ceil(h / s) x ceil(w / s) cells.
    """

    def mix(self, inner: Tensor) -> Tensor:
        """Attend."""
        tokens, grid = to_tokens(inner)
        stride = self.proj.stride[0]
        return to_map(
            self.token_mixer(tokens, grid), Grid((grid.h + stride - 1) // stride, (grid.w + stride - 1) // stride)
        )
