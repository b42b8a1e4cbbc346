"""Rotary positions of images against a loop with complex numbers."""

import cmath

import pytest
import torch

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.parts.channel_mixers import GatedMLP, NormedGatedMLP
from vitrail.parts.grid_rotation import GridRotation


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (16, 2)])
def test_rotation_cell_by_cell(size):
    position, grid, d = GridRotation(8, reference=16), Grid(*size, prefix=1), 8
    q = torch.randn(2, 3, grid.tokens, d, dtype=torch.double)
    got, _ = position.rotate(q, q, grid)
    assert torch.equal(got[:, :, 0], q[:, :, 0])
    for n in range(1, grid.tokens):
        y, x = divmod(n - 1, grid.w)
        for pair in range(d // 2):
            t = 16 * y / grid.h if pair < d // 4 else 16 * x / grid.w
            turn = cmath.exp(1j * t * 10000 ** (-4 * (pair % (d // 4)) / d))
            want = torch.complex(q[:, :, n, 2 * pair], q[:, :, n, 2 * pair + 1]) * turn
            torch.testing.assert_close(got[:, :, n, 2 * pair], want.real, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(got[:, :, n, 2 * pair + 1], want.imag, rtol=1e-5, atol=1e-6)


def test_scores_depend_on_the_offset_alone():
    position, grid = GridRotation(8, reference=16), Grid(4, 4)
    q, k = torch.randn(1, 1, 1, 8).expand(-1, -1, 16, -1), torch.randn(1, 1, 1, 8).expand(-1, -1, 16, -1)
    q, k = position.rotate(q, k, grid)
    scores = (q @ k.mT)[0, 0].view(4, 4, 4, 4)
    torch.testing.assert_close(scores[0, 0, 1, 2], scores[2, 1, 3, 3])
    assert (scores[0, 0, 1, 2] - scores[0, 0, 2, 1]).abs() > 1e-3


def test_heads_of_an_odd_number_of_pairs_are_refused():
    with pytest.raises(VitrailError, match="steps of 4, got 6"):
        GridRotation(6, reference=16)


def test_sub_norm_is_between_the_gate_and_the_last_layer():
    plain, normed, x = GatedMLP(6, 8), NormedGatedMLP(6, 8), torch.randn(2, 3, 6)
    normed.load_state_dict({**plain.state_dict(), **{k: v for k, v in normed.state_dict().items() if "norm" in k}})
    gate, value = plain.fc1(x).chunk(2, -1)
    want = plain.fc2(torch.nn.functional.layer_norm(torch.nn.functional.silu(gate) * value, (8,), eps=1e-6))
    torch.testing.assert_close(normed(x, Grid(1, 3)), want)
