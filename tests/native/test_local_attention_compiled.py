"""The compiled local attention against a loop over cells and their neighbours in fp64."""

import itertools

import pytest
import torch
from torch import Tensor

from closeness import CLOSE, drawn, off, with_threads
from vitrail.grid import Grid
from vitrail.native import local_attention as room
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.local_attention import Offsets, local_attention


def offsets_of(heads: int, kernel: int, head_dim: int, first: int) -> Offsets:
    return Offsets(torch.randn(heads, kernel, first), torch.randn(heads, kernel, head_dim - first))


def twin(qkv: Tensor, grid: Grid, offsets: Offsets) -> Tensor:
    """Attend cell by cell: a key off the map is zero and takes part."""
    heads, kernel, first = offsets.rows.shape
    q, k, v = qkv.double().unflatten(2, (3, heads, -1)).unflatten(1, (grid.h, grid.w)).unbind(3)
    rows, columns = offsets.rows.double(), offsets.columns.double()
    y, zero = torch.empty_like(q), torch.zeros_like(q[:, 0, 0])
    for i, j in itertools.product(range(grid.h), range(grid.w)):
        own, scores, values = q[:, i, j], [], []
        for a, b in itertools.product(range(kernel), range(kernel)):
            row, column = i + a - kernel // 2, j + b - kernel // 2
            inside = 0 <= row < grid.h and 0 <= column < grid.w
            key, value = (k[:, row, column], v[:, row, column]) if inside else (zero, zero)
            place = (own[..., :first] * rows[:, a]).sum(-1) + (own[..., first:] * columns[:, b]).sum(-1)
            scores.append((own * key).sum(-1) + place)
            values.append(value)
        weights = torch.stack(scores, -1).softmax(-1)
        y[:, i, j] = (weights[..., None] * torch.stack(values, -2)).sum(-2)
    return y.flatten(3).flatten(1, 2)


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize(
    ("size", "heads", "head_dim"), [((1, 1), 1, 1), ((2, 3), 3, 5), ((7, 7), 2, 8), ((9, 17), 3, 3), ((5, 33), 1, 20)]
)
def test_it_is_the_loop_over_neighbours(size, heads, head_dim, kernel, dtype):
    grid, offsets = Grid(*size), offsets_of(heads, kernel, head_dim, head_dim // 2)
    qkv = drawn(3, grid.tokens, 3 * heads * head_dim, dtype=RESIDUAL[dtype])
    tolerance = CLOSE[torch.float32] if dtype == torch.float32 else CLOSE[torch.float16]
    assert off(local_attention(qkv, grid, offsets), twin(qkv, grid, offsets)) < tolerance


def test_bands_neighbours_in_the_batch_and_threads_change_no_bit(dtype, monkeypatch):
    grid, offsets = Grid(19, 7), offsets_of(3, 7, 6, 3)
    qkv = drawn(5, grid.tokens, 54, dtype=RESIDUAL[dtype])
    want = local_attention(qkv, grid, offsets)
    assert torch.equal(want, torch.cat([local_attention(one, grid, offsets) for one in qkv.split(1)]))
    assert torch.equal(want, with_threads(lambda: local_attention(qkv, grid, offsets)))
    monkeypatch.setattr(room, "ROOM", 1)  # bands of 8 rows
    assert torch.equal(want, local_attention(qkv, grid, offsets))


def test_a_cell_reaches_its_neighborhood_only(dtype):
    grid, offsets = Grid(9, 20), offsets_of(2, 5, 4, 2)
    qkv = drawn(2, grid.tokens, 24, dtype=RESIDUAL[dtype])
    qkv[0, 4 * 20 + 16, 8:] = torch.nan  # key and value of row 4, column 16
    reached = local_attention(qkv, grid, offsets).isnan().any(-1).nonzero().tolist()
    assert reached == [[0, y * 20 + x] for y in range(2, 7) for x in range(14, 19)]


def test_scores_far_from_zero_stay_finite(dtype):
    grid, offsets = Grid(4, 5), offsets_of(1, 3, 8, 4)
    qkv = 40 * drawn(1, grid.tokens, 24, dtype=RESIDUAL[dtype])
    tolerance = 2e-5 if dtype == torch.float32 else 2 * CLOSE[torch.float16]
    assert off(local_attention(qkv, grid, offsets), twin(qkv, grid, offsets)) < tolerance
