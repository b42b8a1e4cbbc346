"""Continuous relative position bias on log-spaced offsets: a window may change its size."""

from math import log2

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from vitrail.grid import Grid
from vitrail.parts.positions import NoPosition, relative_index
from vitrail.shapes import Bias, Heads


class LogSpacedPositionBias(NoPosition):
    """A bias for each head that a small MLP computes from the offset between two cells.

    B[i, j] = 16 sigmoid(W_2 relu(W_1 o + b_1)), o = sign(u) log2(1 + 8 |u|) / log2(8), u = (p_i - p_j) / (w - 1)

    "Swin Transformer V2", section 3.3, equations 3 and 4. The factors 8 and 16 and the sigmoid are the authors' code's.
    w is the side of the window in pre-training: a model fine-tuned with larger windows extends the offsets beyond 1,
    and those that it was trained with keep their bias.

    Args:
        num_heads: heads h.
        window_size: side of the window, in cells.
        pretrained_window: side w that offsets are divided by; 0 is `window_size`.
        hidden: width of the MLP.

    Example:
        >>> LogSpacedPositionBias(3, window_size=8).bias(torch.zeros(1, 3, 40, 8), Grid(8, 5)).shape
        torch.Size([3, 40, 40])
    """

    index: Tensor
    offsets: Tensor

    def __init__(self, num_heads: int, window_size: int, pretrained_window: int = 0, hidden: int = 512):
        super().__init__()
        self.size, self.pretrained = (window_size, window_size), pretrained_window
        self.mlp = nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, num_heads, bias=False))
        offsets = log_offsets(window_size, pretrained_window or window_size)
        self.register_buffer("offsets", offsets, persistent=False)
        self.register_buffer("index", relative_index(window_size, window_size), persistent=False)

    @property
    def table(self) -> Tensor:
        """Bias of each offset and head, `((2 w - 1)^2, h)`."""
        return 16 * self.mlp(self.offsets).sigmoid()

    def bias(self, q: Heads, grid: Grid) -> Bias | None:
        """Compute the biases of all offsets, and look those of `grid` up: `(h, N, N)`."""
        index = self.index[: grid.h, : grid.w, : grid.h, : grid.w].flatten(2, 3).flatten(0, 1)  # (hw, hw)
        return embedding(index, self.table).permute(2, 0, 1)  # (N, N, h) -> (h, N, N)


def log_offsets(window_size: int, pretrained_window: int) -> Tensor:
    """Return the log-spaced offset of each row of a relative position table, `((2 w - 1)^2, 2)`: rows, columns.

    Example:
        >>> log_offsets(2, 2)[:4].tolist()
        [[-1.0566..., -1.0566...], [-1.0566..., 0.0], [-1.0566..., 1.0566...], [0.0, -1.0566...]]
    """
    steps = torch.arange(1 - window_size, window_size, dtype=torch.float32) * 8 / max(pretrained_window - 1, 1)
    axis = steps.sign() * (steps.abs() + 1).log2() / log2(8)
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).flatten(0, 1)
