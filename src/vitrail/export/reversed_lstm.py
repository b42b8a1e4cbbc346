"""LSTM over padded sequences in PyTorch's own operations, for programs that PyTorch runs.

Padding on the right follows the tokens that a forward direction reads, so it needs no packing. A backward direction is
a forward one over each sequence turned around, with its padding left where it is.
"""

import torch
from torch import Tensor, nn

from vitrail.layouts import Layout
from vitrail.parts.recurrent import LSTM


class ReversedLSTM(nn.Module):
    """The layers of an `LSTM`, each direction as one operation.

    Args:
        lstm: the layers, whose parameters are used.
        shared: not used; forms of window attention share tables.

    Example:
        >>> from vitrail.layouts import TokenSequence
        >>> lstm, layout = LSTM(3, hidden=4, depth=2, directions=2), TokenSequence(5, lengths=torch.tensor([5, 2]))
        >>> x = torch.randn(2, 5, 3)
        >>> torch.allclose(ReversedLSTM(lstm)(x, layout), lstm(x, layout), atol=1e-6)
        True
    """

    def __init__(self, lstm: LSTM, shared: object = None):
        super().__init__()
        cells = lstm.cells
        self.directions = 2 if cells.bidirectional else 1
        self.hidden = cells.hidden_size
        self.weights = nn.ParameterList(each for layer in cells.all_weights for each in layer)

    def forward(self, x: Tensor, grid: Layout) -> Tensor:
        """Return the state after each token; 0 at padding."""
        lengths = getattr(grid, "lengths", None)
        lengths = torch.full((x.shape[0],), x.shape[1], device=x.device) if lengths is None else lengths
        place, count = torch.arange(x.shape[1], device=x.device), lengths[:, None]
        real = place < count  # (B, N)
        turned = torch.where(real, count - 1 - place, place)
        weights = list(self.weights)
        for first in range(0, len(weights), 4 * self.directions):
            states = [self._run(x, weights[first : first + 4])]
            if self.directions == 2:
                states.append(_take(self._run(_take(x, turned), weights[first + 4 : first + 8]), turned))
            x = torch.cat(states, dim=-1) * real[..., None]
        return x

    def _run(self, x: Tensor, weights: list[Tensor]) -> Tensor:
        zero = x.new_zeros(1, x.shape[0], self.hidden)
        return torch.lstm(x, (zero, zero), weights, True, 1, 0.0, False, False, True)[0]


def _take(x: Tensor, places: Tensor) -> Tensor:
    """Return the entries of `(B, N, C)` at places `(B, N)` of each sequence."""
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[2]))
