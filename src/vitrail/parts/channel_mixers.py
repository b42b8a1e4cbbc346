"""Channel mixers: what each token thinks by itself. `forward(x, grid) -> x`."""

from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.shapes import Tokens


class MLP(nn.Module):
    """Two linear layers with a GELU between: `W_2 gelu(W_1 x)`.

    "An Image is Worth 16x16 Words", section 3.1. The GELU is the exact one (erf); the JAX code's default is the tanh
    approximation, another function by up to 5e-4.

    Args:
        dim: channels C.
        hidden: channels between the two layers.
    """

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Transform each token."""
        return self.fc2(self.act(self.fc1(x)))
