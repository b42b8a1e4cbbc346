"""LSTM layers over sequences, and their cell written out."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from vitrail.layouts import Layout
from vitrail.parts.backbone import Features
from vitrail.shapes import Pooled, Tokens


class LSTM(nn.Module):
    """Long short-term memory over each sequence, in one or both directions: `(x, layout) -> x`.

    "Long Short-Term Memory" (1997) with the forget gate of "Learning to Forget" (2000); `lstm_cell` has the formulas.
    Padding is never read: the backward direction starts at the last token of each sequence. Padded outputs are 0.

    Args:
        dim: channels C of the input.
        hidden: channels of each direction's state.
        depth: layers.
        directions: 1 (forward), or 2 (forward and backward, concatenated).
        dropout: rate of dropped entries between layers while training.

    Example:
        >>> from vitrail.layouts import TokenSequence
        >>> layout = TokenSequence(5, lengths=torch.tensor([5, 3]))
        >>> LSTM(8, hidden=6, directions=2)(torch.randn(2, 5, 8), layout).shape
        torch.Size([2, 5, 12])
    """

    def __init__(self, dim: int, hidden: int, depth: int = 1, directions: int = 1, dropout: float = 0.0):
        super().__init__()
        between = dropout if depth > 1 else 0.0  # torch warns of dropout that one layer would ignore
        self.cells = nn.LSTM(dim, hidden, depth, batch_first=True, dropout=between, bidirectional=directions == 2)

    def forward(self, x: Tokens, grid: Layout) -> Tensor:
        """Return the state after each token, `(B, N, directions * hidden)`."""
        lengths = getattr(grid, "lengths", None)
        if lengths is None:
            return self.cells(x)[0]
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.cells(packed)[0], batch_first=True, total_length=x.shape[1])[0]


def lstm_cell(x: Tensor, h: Tensor, c: Tensor, layer: nn.LSTM, suffix: str = "l0") -> tuple[Tensor, Tensor]:
    """Return the next state and memory of one step: the readable specification of `LSTM`.

    i, f, o = sigmoid(W x + b + U h + d), g = tanh(...); c' = f * c + i * g; h' = o * tanh(c')

    Args:
        x: input `(B, C)`.
        h: state `(B, H)`.
        c: memory `(B, H)`.
        layer: weights W, U and biases b, d, stacked in the order i, f, g, o.
        suffix: layer and direction in torch's names, such as `l0` or `l0_reverse`.

    Example:
        >>> layer, x, zero = nn.LSTM(3, 4, batch_first=True), torch.randn(2, 3), torch.zeros(2, 4)
        >>> h, c = lstm_cell(x, zero, zero, layer)
        >>> torch.allclose(h, layer(x[:, None])[0][:, 0], atol=1e-6)
        True
    """
    w, u = getattr(layer, f"weight_ih_{suffix}"), getattr(layer, f"weight_hh_{suffix}")
    b, d = getattr(layer, f"bias_ih_{suffix}"), getattr(layer, f"bias_hh_{suffix}")
    i, f, g, o = (x @ w.T + b + h @ u.T + d).chunk(4, dim=-1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


class FinalState(nn.Module):
    """Last state of each direction: of the forward one after the last token, of the backward one after the first.

    Args:
        directions: 1 or 2.
    """

    def __init__(self, directions: int = 1):
        super().__init__()
        self.directions = directions

    def forward(self, features: Features) -> Pooled:
        """Return `(B, directions * hidden)`."""
        tokens, lengths = features.tokens, getattr(features.grid, "lengths", None)
        last = tokens.shape[1] - 1 if lengths is None else lengths - 1
        rows = torch.arange(tokens.shape[0], device=tokens.device)
        forward, *backward = tokens.chunk(self.directions, dim=-1)
        return torch.cat([forward[rows, last], *(state[:, 0] for state in backward)], dim=-1)
