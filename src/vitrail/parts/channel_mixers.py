"""Channel mixers: functions of each token alone. `forward(x, grid) -> x`."""

from torch import nn

from vitrail.layouts import Layout
from vitrail.shapes import Tokens


class MLP(nn.Module):
    """Two linear layers with an activation between: `W_2 act(W_1 x)`, by default GELU.

    "An Image is Worth 16x16 Words", section 3.1. The GELU is the exact one (erf); the JAX code's default is the tanh
    approximation, another function by up to 5e-4.

    Args:
        dim: channels C.
        hidden: channels between the two layers.
        act: activation; GELU by default.
        bias: whether the two layers have biases.
    """

    def __init__(self, dim: int, hidden: int, act: nn.Module | None = None, bias: bool = True):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden, bias=bias)
        self.act = act or nn.GELU()
        self.fc2 = nn.Linear(hidden, dim, bias=bias)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Transform each token."""
        return self.fc2(self.act(self.fc1(x)))


class GatedMLP(nn.Module):
    """Two linear layers with a gate between them: `W_2 (act(a) * b)`, `(a, b) = W_1 x`; with SiLU it is SwiGLU.

    "GLU Variants Improve Transformer", equation 6.

    Args:
        dim: channels C.
        hidden: channels of each of the two halves.
        act: activation of the gate; SiLU by default.
    """

    def __init__(self, dim: int, hidden: int, act: nn.Module | None = None):
        super().__init__()
        self.fc1 = nn.Linear(dim, 2 * hidden)
        self.act = act or nn.SiLU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Transform each token."""
        gate, value = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(self.act(gate) * value)


class NormedGatedMLP(GatedMLP):
    """SwiGLU with a norm before the last layer (sub-LN): `W_2 norm(act(a) * b)`, `(a, b) = W_1 x`.

    "EVA-02", section 2.1, after "Foundation Transformers" (Magneto).

    Args:
        dim: channels C.
        hidden: channels of each of the two halves.
    """

    def __init__(self, dim: int, hidden: int):
        super().__init__(dim, hidden)
        self.norm = nn.LayerNorm(hidden, eps=1e-6)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Transform each token."""
        gate, value = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(self.norm(self.act(gate) * value))
