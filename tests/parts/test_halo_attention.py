"""Halo attention and stand-alone self-attention against loops over queries and keys."""

import itertools

import pytest
import torch

from vitrail.grid import Grid
from vitrail.parts.attention_stem import SpatiallyAwareAttention
from vitrail.parts.token_mixers.halo_attention import HaloAttention, StandAloneAttention


def drawn(m: torch.nn.Module) -> torch.nn.Module:
    for p in m.parameters():
        torch.nn.init.normal_(p, std=0.7)
    return m.double()


def compare(m, x, grid, want):
    got, inputs = m(x, grid), [x, *m.parameters()]
    torch.testing.assert_close(got, want)
    weight = torch.randn_like(got)
    ours, loops = (torch.autograd.grad((y * weight).sum(), inputs) for y in (got, want))
    for a, b in zip(ours, loops, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (3, 7)])
def test_halo_attention_against_a_loop(size, stride):
    grid, block, halo, heads, d = Grid(*size), 4, 1, 2, 3
    m = drawn(HaloAttention(6, heads, block, halo, stride))
    x = torch.randn(2, grid.tokens, 6, dtype=torch.double, requires_grad=True)
    q, kv = m.q(x).view(2, *size, heads, d), m.kv(x).view(2, *size, heads, 2 * d)
    k, v = kv.chunk(2, dim=-1)
    zero, window, rows = torch.zeros(2, d, dtype=torch.double), block + 2 * halo, []
    for y in range(0, grid.h, stride):
        for u in range(0, grid.w, stride):
            top, left = y // block * block, u // block * block
            for h in range(heads):
                scores, values = [], []
                for i in range(window):
                    for j in range(window):
                        ky, kx = top - halo + i, left - halo + j
                        inside = 0 <= ky < grid.h and 0 <= kx < grid.w
                        key, value = (k[:, ky, kx, h], v[:, ky, kx, h]) if inside else (zero, zero)
                        place = m.position.rows[i - (y - top) // stride + window - 1]
                        place = place + m.position.columns[j - (u - left) // stride + window - 1]
                        scores.append((q[:, y, u, h] * key).sum(-1) / d**0.5 + q[:, y, u, h] @ place)
                        values.append(value)
                weights = torch.stack(scores, -1).softmax(-1)
                rows.append((weights[..., None] * torch.stack(values, 1)).sum(1))
    want = torch.stack(rows, 1).view(2, -1, heads * d)
    compare(m, x, grid, want)


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (3, 7)])
def test_stand_alone_attention_against_a_loop(size):
    grid, heads, d = Grid(*size), 2, 4
    m = drawn(StandAloneAttention(8, heads, kernel=3))
    x = torch.randn(2, grid.tokens, 8, dtype=torch.double, requires_grad=True)
    q, kv = m.q(x).view(2, *size, heads, d), m.kv(x).view(2, *size, heads, 2 * d)
    zero, rows = torch.zeros(2, d, dtype=torch.double), []
    for y in range(grid.h):
        for u in range(grid.w):
            for h in range(heads):
                scores, values = [], []
                for i in range(3):
                    for j in range(3):
                        ky, kx = y + i - 1, u + j - 1
                        inside = 0 <= ky < grid.h and 0 <= kx < grid.w
                        key, value = kv[:, ky, kx, h].chunk(2, -1) if inside else (zero, zero)
                        place = torch.cat([m.position.rows[h, i], m.position.columns[h, j]])
                        scores.append((q[:, y, u, h] * key).sum(-1) + q[:, y, u, h] @ place)
                        values.append(value)
                weights = torch.stack(scores, -1).softmax(-1)
                rows.append((weights[..., None] * torch.stack(values, 1)).sum(1))
    compare(m, x, grid, torch.stack(rows, 1).view(2, -1, heads * d))


def test_cells_beyond_the_halo_have_no_influence():
    m, grid = drawn(HaloAttention(6, 2, block=2, halo=1)), Grid(6, 6)
    x = torch.randn(1, 36, 6, dtype=torch.double)
    other = x.clone()
    other[0, 3] += 1  # row 0, column 3: seen by the blocks of columns 2-3 and, as their halo, 4-5, in rows 0-1
    differs = ((m(other, grid) - m(x, grid)).abs().amax(-1) > 1e-9).view(6, 6)
    assert differs.nonzero().tolist() == [[y, u] for y in range(2) for u in range(2, 6)]


@pytest.mark.parametrize("size", [(4, 4), (3, 7)])
def test_keys_are_the_cells_of_the_window(size):
    m, grid = HaloAttention(6, 2, block=4, halo=1), Grid(*size)
    queries, keys = m.token_index(grid), m.keys(grid)
    assert sorted(queries[queries >= 0].tolist()) == list(range(grid.tokens))
    assert queries.shape[1] == 16 and keys.shape[1] == 36
    assert all(set(q[q >= 0].tolist()) <= set(k.tolist()) for q, k in zip(queries, keys, strict=True))


@pytest.mark.parametrize("size", [(1, 1), (4, 8), (3, 6)])
def test_spatially_aware_attention_against_a_loop(size):
    m, heads, d = drawn(SpatiallyAwareAttention(3, 4, 2, block=4, mixtures=3)), 2, 2
    images = torch.randn(2, 3, *size, dtype=torch.double, requires_grad=True)
    rows, columns = (-(-side // 4) * 4 for side in size)
    x = torch.zeros(2, rows, columns, 3, dtype=torch.double)
    x = torch.index_put(x, (torch.arange(2)[:, None, None], torch.arange(size[0])[:, None], torch.arange(size[1])),
                        images.permute(0, 2, 3, 1))  # fmt: skip
    qk = x @ m.qk.weight[..., 0, 0].mT
    found = []
    for y, u, h in itertools.product(range(rows), range(columns), range(heads)):
        scores, values, top, left = [], [], y // 4 * 4, u // 4 * 4
        for a, c in itertools.product(range(4), range(4)):
            q, k = qk[:, y, u, h * d : h * d + d], qk[:, top + a, left + c, 4 + h * d : 4 + h * d + d]
            p = ((m.rows[a] + m.columns[c]) @ m.mixture.T).softmax(-1)
            matrix = sum(p[i] * m.values[i] for i in range(3))
            scores.append((q * k).sum(-1))
            values.append((x[:, top + a, left + c] @ matrix.T)[:, h * d : h * d + d])
        weights = torch.stack(scores, -1).softmax(-1)
        found.append((weights[..., None] * torch.stack(values, 1)).sum(1))
    want = torch.stack(found, 1).view(2, rows, columns, 4).permute(0, 3, 1, 2)
    got, inputs = m(images), [images, *m.parameters()]
    torch.testing.assert_close(got, want)
    weight = torch.randn_like(got)
    ours, loops = (torch.autograd.grad((y * weight).sum(), inputs) for y in (got, want))
    for a, b in zip(ours, loops, strict=True):
        torch.testing.assert_close(a, b)
