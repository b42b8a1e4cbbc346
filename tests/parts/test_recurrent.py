"""LSTM: the cell's formulas in a loop, padding, final states."""

import pytest
import torch

from vitrail.layouts import TokenSequence
from vitrail.parts.backbone import Features
from vitrail.parts.recurrent import LSTM, FinalState, lstm_cell


def by_loop(x: torch.Tensor, module: LSTM, suffix: str, order) -> torch.Tensor:
    """Run one layer of one direction, token by token, over one sequence `(N, C)`."""
    hidden = module.cells.hidden_size
    h, c = x.new_zeros(1, hidden), x.new_zeros(1, hidden)
    out = x.new_empty(len(x), hidden)
    for t in order:
        h, c = lstm_cell(x[t : t + 1], h, c, module.cells, suffix)
        out[t] = h[0]
    return out


@pytest.mark.parametrize("directions", [1, 2])
def test_a_padded_batch_equals_loops_over_its_sequences(directions):
    module, x, lengths = LSTM(5, 4, depth=2, directions=directions), torch.randn(3, 7, 5), torch.tensor([7, 1, 4])
    x[1, 1:], x[2, 4:] = 99.0, -99.0
    got = module(x, TokenSequence(7, lengths=lengths))
    for row, n in enumerate(lengths.tolist()):
        state = x[row, :n]
        for layer in ("l0", "l1"):
            parts = [by_loop(state, module, layer, range(n))]
            if directions == 2:
                parts.append(by_loop(state, module, layer + "_reverse", reversed(range(n))))
            state = torch.cat(parts, dim=1)
        torch.testing.assert_close(got[row, :n], state, rtol=1e-5, atol=1e-6)
        assert not got[row, n:].any()
        final = FinalState(directions)(Features(got, TokenSequence(7, lengths=lengths), ()))[row]
        torch.testing.assert_close(final[:4], state[n - 1, :4])
        if directions == 2:
            torch.testing.assert_close(final[4:], state[0, 4:])


def test_without_padding_no_lengths_are_needed():
    module, x = LSTM(5, 4, directions=2), torch.randn(2, 6, 5)
    torch.testing.assert_close(module(x, TokenSequence(6)), module(x, TokenSequence(6, lengths=torch.tensor([6, 6]))))
