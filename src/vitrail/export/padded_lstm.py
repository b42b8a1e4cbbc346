"""LSTM over padded sequences as one operation: PyTorch's packs them, and its program would unroll every step."""

import torch
from torch import Tensor, nn

from vitrail.layouts import Layout
from vitrail.parts.recurrent import LSTM


def padded_lstm(x: Tensor, lengths: Tensor, w: Tensor, r: Tensor, b: Tensor) -> Tensor:
    """Return the state after each token of one layer, `(B, N, D H)`; 0 at padding.

    Args:
        x: `(B, N, C)`, padded on the right.
        lengths: `(B,)` tokens of each sequence.
        w: weights of the input `(D, 4 H, C)` for D directions; gates in the order input, output, forget, candidate.
        r: weights of the state `(D, 4 H, H)`.
        b: biases `(D, 8 H)`, those of the input first.
    """
    return _step_by_step(x, lengths, w, r, b)


@torch.library.custom_op("vitrail::padded_lstm", mutates_args=())
def _step_by_step(x: Tensor, lengths: Tensor, w: Tensor, r: Tensor, b: Tensor) -> Tensor:
    tokens, found = x.shape[1], []
    for number in range(w.shape[0]):
        h = c = x.new_zeros(x.shape[0], r.shape[2])
        inner, states = x @ w[number].T + b[number].chunk(2)[0], []
        for t in range(tokens) if number == 0 else reversed(range(tokens)):
            i, o, f, g = (inner[:, t] + h @ r[number].T + b[number].chunk(2)[1]).chunk(4, dim=-1)
            real = (t < lengths)[:, None]
            c = torch.where(real, f.sigmoid() * c + i.sigmoid() * g.tanh(), c)
            h = torch.where(real, o.sigmoid() * c.tanh(), h)
            states.append(h * real)
        found.append(torch.stack(states if number == 0 else states[::-1], dim=1))
    return torch.cat(found, dim=-1)


@_step_by_step.register_fake
def _shape(x: Tensor, lengths: Tensor, w: Tensor, r: Tensor, b: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], w.shape[0] * r.shape[2])


class PaddedLSTM(nn.Module):
    """The layers of an `LSTM`, each as one operation.

    Args:
        lstm: the layers.
        shared: not used; forms of window attention share tables.

    Example:
        >>> from vitrail.layouts import TokenSequence
        >>> lstm, layout = LSTM(3, hidden=4, directions=2), TokenSequence(5, lengths=torch.tensor([5, 2]))
        >>> x = torch.randn(2, 5, 3)
        >>> torch.allclose(PaddedLSTM(lstm)(x, layout), lstm(x, layout), atol=1e-6)
        True
    """

    def __init__(self, lstm: LSTM, shared: object = None):
        super().__init__()
        cells = lstm.cells
        suffixes = ("", "_reverse")[: 2 if cells.bidirectional else 1]
        self.weights = nn.ParameterList()
        for layer in range(cells.num_layers):
            for name in ("weight_ih", "weight_hh", "bias"):
                values = [_gates(cells, name, f"l{layer}{suffix}") for suffix in suffixes]
                self.weights.append(nn.Parameter(torch.stack(values), requires_grad=False))

    def forward(self, x: Tensor, grid: Layout) -> Tensor:
        """Return the state after each token."""
        lengths = getattr(grid, "lengths", None)
        lengths = torch.full((x.shape[0],), x.shape[1], device=x.device) if lengths is None else lengths
        weights = list(self.weights)
        for first in range(0, len(weights), 3):
            x = padded_lstm(x, lengths, *weights[first : first + 3])
        return x


def _gates(cells: nn.LSTM, name: str, suffix: str) -> Tensor:
    """Return a weight with the gates in ONNX's order; PyTorch's is input, forget, candidate, output."""
    if name == "bias":
        return torch.cat([_gates(cells, f"bias_{side}", suffix) for side in ("ih", "hh")])
    i, f, g, o = getattr(cells, f"{name}_{suffix}").detach().chunk(4)
    return torch.cat([i, o, f, g])
