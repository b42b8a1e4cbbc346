"""An MLP with a depthwise convolution inside: zeros around the map tell positions."""

from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.convolutions import to_map, to_tokens
from vitrail.shapes import Tokens


class DepthwiseMLP(nn.Module):
    """Linear layer, 3 x 3 depthwise convolution, GELU, linear layer: `W_2 gelu(DWConv(W_1 x))`.

    "PVT v2: Improved Baselines with Pyramid Vision Transformer", section 3.2, "Convolutional feed-forward".

    Args:
        dim: channels C.
        hidden: channels between the linear layers.
        before: activation before the convolution; none by default, ReLU in the linear variant (authors' code).

    Example:
        >>> import torch
        >>> DepthwiseMLP(8, 16)(torch.zeros(1, 3 * 4, 8), Grid(3, 4)).shape
        torch.Size([1, 12, 8])
    """

    def __init__(self, dim: int, hidden: int, before: nn.Module | None = None):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.before = before or nn.Identity()
        self.conv = nn.Conv2d(hidden, hidden, kernel_size=3, padding=1, groups=hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Transform each token and its neighbours; the grid must have no prefix."""
        hidden = self.before(self.fc1(x))
        return self.fc2(self.act(to_tokens(self.conv(to_map(hidden, grid)))[0]))
