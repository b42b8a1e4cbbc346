"""PEG against loops, and its translation equivariance."""

import pytest
import torch

from vitrail.grid import Grid
from vitrail.parts.peg import PEG


def by_loops(peg: PEG, x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Add to each cell the weighted sum of its neighbours, cell by cell."""
    k, want, cells = peg.conv.kernel_size[0], x.clone(), grid.cells(x)
    for i in range(grid.h):
        for j in range(grid.w):
            total = peg.conv.bias.expand(len(x), -1).clone()
            for u in range(k):
                for v in range(k):
                    y, z = i + u - k // 2, j + v - k // 2
                    if 0 <= y < grid.h and 0 <= z < grid.w:
                        total = total + peg.conv.weight[:, 0, u, v] * cells[:, y, z]
            want[:, grid.prefix + i * grid.w + j] += total
    return want


@pytest.mark.parametrize("grid", [Grid(1, 1), Grid(1, 7, prefix=1), Grid(5, 3), Grid(7, 11, prefix=2)])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_cell_by_cell_with_gradients(grid, kernel_size):
    peg = PEG(4, kernel_size).double()
    x = torch.randn(2, grid.tokens, 4, dtype=torch.double, requires_grad=True)
    got, want = peg(x, grid), by_loops(peg, x, grid)
    torch.testing.assert_close(got, want)
    seed, inputs = torch.randn_like(got), (x, peg.conv.weight, peg.conv.bias)
    for a, b in zip(torch.autograd.grad(got, inputs, seed), torch.autograd.grad(want, inputs, seed), strict=True):
        torch.testing.assert_close(a, b)


def test_prefix_tokens_pass():
    x = torch.randn(2, 2 + 6, 4)
    assert torch.equal(PEG(4)(x, Grid(2, 3, prefix=2))[:, :2], x[:, :2])


def test_translation_equivariant_away_from_the_border():
    peg, wide = PEG(4), torch.randn(1, 9, 12, 4)
    left, right = (part.flatten(1, 2) for part in (wide[:, :, :11], wide[:, :, 1:]))
    a, b = (Grid(9, 11).cells(peg(x, Grid(9, 11))) for x in (left, right))
    torch.testing.assert_close(a[:, 1:-1, 2:-1], b[:, 1:-1, 1:-2])
    assert not torch.allclose(a[:, :, 1], b[:, :, 0])  # the border is seen: zeros stand there


def test_parameters_as_the_paper_counts_them():
    weight, bias = PEG(192).conv.parameters()
    assert weight.numel() == 1728  # "CPVT-Ti brings 1,728 parameters"; the authors' code has a bias too
    assert bias is not None and bias.numel() == 192
