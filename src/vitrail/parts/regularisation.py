"""Branches that are scaled, or dropped at random."""

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError


class DropPath(nn.Module):
    """Drop a residual branch for whole samples while training: `x * b / (1 - rate)`, b ~ Bernoulli(1 - rate).

    "Deep Networks with Stochastic Depth", section 3. Divided by the keep rate so that evaluation needs no scaling.

    Args:
        rate: probability of dropping the branch of one sample.

    Raises:
        VitrailError: if the rate is not in [0, 1).

    Example:
        >>> DropPath(0.5).eval()(torch.ones(1, 2)).tolist()
        [[1.0, 1.0]]
    """

    def __init__(self, rate: float = 0.0):
        super().__init__()
        if not 0 <= rate < 1:
            raise VitrailError(f"The drop path rate must be at least 0 and below 1, got {rate}. Common: 0 to 0.5.")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop or keep."""
        keep = self.draw(x)
        return x if keep is None else x * keep.view(-1, *[1] * (x.ndim - 1))

    def draw(self, x: Tensor) -> Tensor | None:
        """Draw the factor of each sample, `(B,)`; None where all are kept as they are."""
        if not self.training or self.rate == 0.0:
            return None
        keep = torch.empty(x.shape[0], device=x.device, dtype=x.dtype).bernoulli_(1 - self.rate)
        return keep.div_(1 - self.rate)

    def extra_repr(self) -> str:
        """Show the rate when printed."""
        return f"rate={self.rate:.3f}"


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Let the rate grow linearly from 0 in the first block to `rate` in the last.

    Example:
        >>> drop_path_rates(0.2, 3)
        [0.0, 0.1, 0.2]
    """
    return [rate * i / max(depth - 1, 1) for i in range(depth)]


class LayerScale(nn.Module):
    """A learned factor for each channel of a branch: `gamma * x`.

    "Going deeper with Image Transformers", section 2.

    Args:
        dim: channels C.
        init: first value of each factor.
    """

    def __init__(self, dim: int, init: float = 1e-5):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor) -> Tensor:
        """Scale."""
        return x * self.gamma
