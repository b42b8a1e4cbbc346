"""Positions: the bias of each pair of cells, and tables that are resized."""

import pytest
import torch

from vitrail.grid import Grid
from vitrail.parts.positions import (
    BilinearPosition,
    LearnedPosition,
    NoPosition,
    RelativePositionBias,
    cubic_weights,
    relative_index,
    resize_position,
)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4)])
def test_the_relative_index_is_the_offset_written_in_base_2w_minus_1(size):
    h, w = size
    index = relative_index(h, w)
    for y in range(h):
        for x in range(w):
            for v in range(h):
                for u in range(w):
                    assert index[y, x, v, u] == (y - v + h - 1) * (2 * w - 1) + (x - u + w - 1)
    assert sorted(index.unique().tolist()) == list(range((2 * h - 1) * (2 * w - 1)))


def test_a_smaller_grid_reads_the_entries_of_its_own_offsets():
    position = RelativePositionBias(num_heads=2, size=(4, 5))
    biases = [position.bias(torch.zeros(1, 2, h * w, 4), Grid(h, w)) for h, w in ((4, 5), (2, 3))]
    assert biases[0] is not None and biases[1] is not None
    whole, part = biases[0].view(2, 4, 5, 4, 5), biases[1].view(2, 2, 3, 2, 3)
    assert torch.equal(part, whole[:, :2, :3, :2, :3])
    assert torch.equal(part, whole[:, 1:3, 2:5, 1:3, 2:5])  # an offset is the same wherever it is taken


def test_the_null_position_is_the_identity():
    q, k = torch.randn(1, 2, 4, 3), torch.randn(1, 2, 4, 3)
    assert NoPosition().bias(q, Grid(2, 2)) is None
    assert all(a is b for a, b in zip(NoPosition().rotate(q, k, Grid(2, 2)), (q, k), strict=True))


def test_a_table_on_its_own_grid_is_itself():
    grid = Grid(3, 5, prefix=1)
    table = torch.randn(1, 16, 4)
    assert resize_position(table, grid, grid) is table


@pytest.mark.parametrize("new", [(1, 1), (2, 9), (6, 10), (7, 3)])
def test_resizing_keeps_the_prefix_and_what_is_constant(new):
    old = Grid(3, 5, prefix=2)
    table = torch.randn(1, 1, 4).repeat(1, old.tokens, 1)
    table[:, :2] = torch.randn(1, 2, 4)
    resized = resize_position(table, old, Grid(*new, prefix=2))
    assert torch.equal(resized[:, :2], table[:, :2])
    torch.testing.assert_close(resized[:, 2:], table[:, 2:3].expand(1, new[0] * new[1], 4))


@pytest.mark.parametrize(("old", "new"), [((14, 14), (7, 9)), ((6, 4), (13, 21)), ((5, 3), (1, 40)), ((8, 8), (8, 8))])
def test_the_matrix_of_an_export_is_the_filter(old, new):
    """Smaller, larger, both, and the same size."""
    cells = torch.randn(1, 5, *old, generator=torch.Generator().manual_seed(0))
    want = torch.nn.functional.interpolate(cells, size=new, mode="bicubic", antialias=True)
    got = cubic_weights(old[0], new[0], cells) @ cells @ cubic_weights(old[1], new[1], cells).mT
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_resizing_keeps_a_slope():
    old, new = Grid(1, 8), Grid(1, 16)
    ramp = (torch.arange(8.0) + 0.5)[None, :, None]
    middle = resize_position(ramp, old, new)[0, 4:12, 0]
    torch.testing.assert_close(middle, (torch.arange(4.0, 12.0) + 0.5) / 2)


def test_resizing_keeps_the_kind_of_number():
    assert resize_position(torch.zeros(1, 4, 2, dtype=torch.bfloat16), Grid(2, 2), Grid(3, 3)).dtype == torch.bfloat16


def test_each_token_receives_its_place():
    position = LearnedPosition(4, Grid(2, 2, prefix=1))
    x = torch.randn(3, 5, 4)
    got, grid = position(x, Grid(2, 2, prefix=1))
    assert grid == Grid(2, 2, prefix=1)
    assert torch.equal(got, x + position.table)


def test_bilinear_positions_are_resized_without_antialiasing():
    position = BilinearPosition(2, Grid(4, 4, prefix=1))
    x = torch.zeros(1, 1 + 6, 2)
    got, grid = position(x, Grid(2, 3, prefix=1))
    cells = position.table[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    want = torch.nn.functional.interpolate(cells, size=(2, 3), mode="bilinear")
    torch.testing.assert_close(got[:, 1:], want.flatten(2).transpose(1, 2))
    assert torch.equal(got[:, 0], position.table[:, 0]) and grid == Grid(2, 3, prefix=1)
