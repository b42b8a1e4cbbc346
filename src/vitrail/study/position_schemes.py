"""Position schemes on one small Transformer, each usable at sizes other than that of training."""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, interpolate

from vitrail.grid import Grid
from vitrail.layouts import Layout
from vitrail.parts.backbone import Classifier
from vitrail.parts.grid_rotation import GridRotation
from vitrail.parts.peg import PEG
from vitrail.parts.positions import LearnedPosition, NoPosition, RelativePositionBias, relative_index
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.shapes import Bias, Heads, Tokens
from vitrail.study.images import StudyImages
from vitrail.study.small_models import assemble, pre_norm_block


class SinusoidalGridPosition(nn.Module):
    """Fixed sines and cosines of row and column, half of the channels each: `x + [f(y), f(x)]`.

    "Attention Is All You Need", section 3.5, on two axes. Places are counted in cells, so a larger grid goes on beyond
    those of training.

    Args:
        dim: channels C, a multiple of 4.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Add each cell's place."""
        rates = 10000 ** -(torch.arange(self.dim // 4) * 4 / self.dim)
        rows, columns = (torch.arange(n)[:, None] * rates for n in (grid.h, grid.w))  # (n, C / 4)
        size = (grid.h, grid.w, self.dim // 4)
        angles = torch.cat([rows[:, None].expand(size), columns[None].expand(size)], dim=-1).flatten(0, 1)
        return x + torch.cat([angles.sin(), angles.cos()], dim=-1).to(x), grid


class ResizedRelativeBias(RelativePositionBias):
    """Relative position bias whose table is resized bicubically for a larger grid, as Swin's weights are."""

    def bias(self, q: Heads, grid: Layout) -> Bias | None:
        """Look up the offsets of the grid: `(h, N, N)`."""
        assert isinstance(grid, Grid), grid
        if (grid.h, grid.w) == self.size:
            return super().bias(q, grid)
        old, new = ((2 * h - 1, 2 * w - 1) for h, w in (self.size, (grid.h, grid.w)))
        table = self.table.T.unflatten(1, old)[None]  # (1, h, 2H - 1, 2W - 1)
        table = interpolate(table, size=new, mode="bicubic", align_corners=False)[0].flatten(1).T
        index = relative_index(grid.h, grid.w).flatten(2, 3).flatten(0, 1)
        return embedding(index, table).permute(2, 0, 1)


SCHEMES = ("none", "sin/cos", "learned", "relative", "rotary", "PEG")


class PEGStep(PEG):
    """A position encoding generator as a step of the embedding."""

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Add each cell's position."""
        return super().forward(x, grid), grid


def positioned(scheme: str, data: StudyImages, dim: int, depth: int, patch_size: int, heads: int = 4) -> Classifier:
    """Build the same Transformer with one of `SCHEMES`.

    Args:
        scheme: how it learns where tokens sit.
        data: gives channels, classes and the size of training.
        dim: channels C.
        depth: blocks.
        patch_size: side of a patch in pixels.
        heads: heads of attention.
    """
    side = data.side // patch_size

    def within() -> NoPosition:
        if scheme == "relative":
            return ResizedRelativeBias(heads, (side, side))
        return GridRotation(dim // heads, side) if scheme == "rotary" else NoPosition()

    steps: dict[str, list[nn.Module]] = {
        "sin/cos": [SinusoidalGridPosition(dim)],
        "learned": [LearnedPosition(dim, Grid(side, side))],
        "PEG": [PEGStep(dim)],
    }
    blocks = [pre_norm_block(dim, SelfAttention(dim, heads, position=within())) for _ in range(depth)]
    return assemble(data, dim, blocks, patch_size, steps.get(scheme, []))
