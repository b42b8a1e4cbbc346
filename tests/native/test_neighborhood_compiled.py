"""Compiled neighborhood attention: the keys of each query, and the output in fp64."""

import itertools
import math

import pytest
import torch
from torch.nn.functional import pad

from closeness import drawn, steps_off, with_threads
from vitrail.grid import Grid
from vitrail.kernels.neighborhood.reference import attend as reference
from vitrail.kernels.neighborhood.window import neighbours
from vitrail.native.build import library, refusal
from vitrail.native.neighborhood import attend_neighbors, meeting, run_bias

# Rows, columns, kernel, dilation: one window; borders only; strips of several widths, the last ones shifted; groups of
# unequal length; every published kernel; long and flat maps.
CASES = [
    (3, 3, 3, 1),
    (4, 7, 3, 1),
    (9, 10, 3, 2),
    (10, 9, 3, 3),
    (5, 5, 5, 1),
    (11, 15, 5, 2),
    (7, 7, 7, 1),
    (8, 11, 7, 1),
    (14, 14, 7, 1),
    (14, 15, 7, 2),
    (7, 23, 7, 1),
    (20, 9, 7, 1),
    (11, 12, 11, 1),
    (13, 30, 11, 1),
    (13, 14, 13, 1),
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def qkv_of(case: tuple[int, int, int, int], heads: int, d: int, dtype: torch.dtype, batch: int = 2):
    """Draw queries, keys and values as a projection leaves them, and a bias table."""
    height, width, kernel_size, _ = case
    qkv = drawn(batch, height, width, 3, heads, d, dtype=dtype)
    return qkv.unbind(3), torch.randn((2 * kernel_size - 1) ** 2, heads)


def compiled(q, k, v, table, kernel_size, dilation):
    cut = meeting(Grid(*q.shape[1:3]), kernel_size, dilation)
    return attend_neighbors(q, k, v, run_bias(table, cut), cut)


@pytest.mark.skipif(refusal(torch.float32) is not None, reason=str(refusal(torch.float32)))
@every_case
def test_every_cell_attends_to_its_neighbours_only(case):
    height, width, kernel_size, dilation = case
    cut = meeting(Grid(height, width), kernel_size, dilation)
    rows, columns = (neighbours(length, kernel_size, dilation).tolist() for length in (height, width))
    most, asked = library("neighborhood").vitrail_rows(), []
    for (key, block), (_, next_block) in itertools.pairwise(cut.starts.tolist()):
        for first, count, run in cut.blocks[block:next_block].tolist():
            assert 1 <= count <= most
            keys = cut.keys[key + run : key + run + cut.run].tolist()
            for cell, line in cut.seats[first : first + count].tolist():
                table = cut.offsets[line].tolist()
                met = {at: row for at, row in zip(keys, table, strict=True) if row < (2 * kernel_size - 1) ** 2}
                y, x = divmod(cell, width)
                assert met == {
                    ny * width + nx: ((y - ny) // dilation + kernel_size - 1) * (2 * kernel_size - 1)
                    + (x - nx) // dilation
                    + kernel_size
                    - 1
                    for ny in rows[y]
                    for nx in columns[x]
                }
                asked.append(cell)
    assert sorted(asked) == list(range(height * width))


@every_case
@pytest.mark.parametrize("d", [2, 32])
def test_output_equals_the_formula_of_the_paper(case, d, dtype):
    (q, k, v), table = qkv_of(case, 3, d, dtype)
    want = reference(q.double(), k.double(), v.double(), table.double(), *case[2:])
    assert steps_off(compiled(q, k, v, table, *case[2:]), want) < 1


@pytest.mark.parametrize("d", [4, 16, 24, 36, 64, 66, 130])
def test_heads_of_any_width(d, dtype):
    (q, k, v), table = qkv_of((9, 8, 7, 1), 2, d, dtype)
    want = reference(q.double(), k.double(), v.double(), table.double(), 7, 1)
    assert steps_off(compiled(q, k, v, table, 7, 1), want) < 1


def test_any_memory_layout(dtype):
    (q, k, v), table = qkv_of((8, 9, 5, 1), 2, 6, dtype)
    want = compiled(q, k, v, table, 5, 1)
    heads_first = [x.permute(0, 3, 1, 2, 4).contiguous().permute(0, 2, 3, 1, 4) for x in (q, k, v)]
    assert torch.equal(compiled(*heads_first, table, 5, 1), want)
    wider = [pad(x, (0, 0, 0, 0, 1, 2))[:, :, 1:-2] for x in (q, k, v)]  # rows that do not follow each other
    assert torch.equal(compiled(*wider, table, 5, 1), want)


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (9, 3), (6, 6)])
def test_padding_is_a_key_and_not_a_query(size, dtype):
    height, width = size
    qkv, padding = drawn(2, height, width, 3, 2, 4, dtype=dtype), drawn(2, 2, 4, dtype=dtype)
    table, cut = torch.randn(169, 2), meeting(Grid(height, width), 7, 1)
    whole = torch.zeros(2, max(height, 7), max(width, 7), 3, 2, 4, dtype=torch.float64)
    whole[:, :, :, 1:] = padding.double()
    whole[:, :height, :width] = qkv.double()
    want = reference(*whole.unbind(3), table.double(), 7, 1)[:, :height, :width]
    assert steps_off(attend_neighbors(*qkv.unbind(3), run_bias(table, cut), cut, padding), want) < 1


def test_large_scores_neither_overflow_nor_vanish(dtype):
    (q, k, v), table = qkv_of((7, 8, 7, 1), 1, 8, dtype)
    q, table = q * 64, table * 50
    got = compiled(q, k, v, table, 7, 1)
    want = reference(q.double(), k.double(), v.double(), table.double(), 7, 1)
    assert math.isfinite(got.float().sum().item()) and steps_off(got, want) < 8


def test_threads_do_not_change_the_output(dtype):
    (q, k, v), table = qkv_of((12, 13, 7, 1), 3, 8, dtype)
    alone = compiled(q, k, v, table, 7, 1)
    assert torch.equal(alone, with_threads(lambda: compiled(q, k, v, table, 7, 1)))
