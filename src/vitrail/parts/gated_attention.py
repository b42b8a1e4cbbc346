"""Attention that weighs content against place, with one gate a head."""

import torch
from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.attend import Attend
from vitrail.parts.positions import NoPosition
from vitrail.shapes import Bias, Heads, Maps


class RelativeOffsetScores(NoPosition):
    """Scores that are a linear function of the offset from query to key: `W (dx, dy, dx^2 + dy^2) + b`.

    "ConViT", equation 3. Any grid works; there is no table.

    Args:
        num_heads: heads h.

    Example:
        >>> RelativeOffsetScores(4).bias(torch.zeros(1, 4, 6, 8), Grid(2, 3)).shape
        torch.Size([4, 6, 6])
    """

    def __init__(self, num_heads: int):
        super().__init__()
        self.slope, self.level = nn.Parameter(torch.empty(num_heads, 3)), nn.Parameter(torch.zeros(num_heads))
        nn.init.trunc_normal_(self.slope, std=0.02)

    def bias(self, q: Heads, grid: Grid) -> Bias:
        """Return the scores `(h, N, N)` of all pairs of cells; the grid must have no prefix."""
        y, x = torch.meshgrid(
            torch.arange(grid.h, device=q.device), torch.arange(grid.w, device=q.device), indexing="ij"
        )
        dy, dx = (at.flatten()[None] - at.flatten()[:, None] for at in (y, x))  # (N, N), key minus query
        offsets = torch.stack([dx, dy, dx**2 + dy**2], dim=-1).to(self.slope.dtype)
        return (offsets @ self.slope.T + self.level).permute(2, 0, 1)  # (N, N, h) -> (h, N, N)


class GatedAttend(Attend):
    """Attention that mixes the softmax of contents with that of positions.

    a = (1 - sigma(g_h)) softmax(q k^T / sqrt(d)) + sigma(g_h) softmax(positional scores); y = a v

    "ConViT", equation 7. The positional scores come as the bias. Rows sum to one.

    Args:
        num_heads: heads h, one gate g each; 1 at the start, so that positions weigh 0.73.
    """

    def __init__(self, num_heads: int):
        super().__init__()
        self.gate = nn.Parameter(torch.ones(num_heads))

    def forward(self, q: Heads, k: Tensor, v: Tensor, bias: Bias | None = None) -> Tensor:
        """Mix the values by both softmaxes."""
        return self.maps(q, k, bias).to(v.dtype) @ v

    def maps(self, q: Heads, k: Tensor, bias: Bias | None) -> Maps:
        """Compute the gated probabilities."""
        assert bias is not None, "gated attention needs positional scores"
        gate = self.gate.sigmoid()[:, None, None]
        content = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
        return torch.lerp(content, bias.softmax(-1).to(content.dtype).expand_as(content), gate.to(content.dtype))
