"""Entering a stage: which tokens become one, and in which order."""

import pytest
import torch
from torch.nn.functional import conv2d

from vitrail.grid import Grid
from vitrail.parts.merging import ConvMerging, NoMerging, PatchMerging, PostNormPatchMerging


@pytest.mark.parametrize("kind", [PatchMerging, PostNormPatchMerging])
@pytest.mark.parametrize("size", [(1, 1), (2, 4), (3, 5), (4, 1)])
def test_patch_merging_reads_down_before_right_and_pads_with_zeros(size, kind):
    grid, merging = Grid(*size), kind(2, 3)
    torch.nn.init.normal_(merging.norm.weight)
    x = torch.randn(2, grid.tokens, 2)
    got, coarse = merging(x, grid)
    assert coarse == Grid((grid.h + 1) // 2, (grid.w + 1) // 2)

    def cell(b, y, x_):
        return x[b, y * grid.w + x_] if y < grid.h and x_ < grid.w else torch.zeros(2)

    for b in range(2):
        for y in range(coarse.h):
            for x_ in range(coarse.w):
                four = [cell(b, 2 * y + down, 2 * x_ + right) for down, right in ((0, 0), (1, 0), (0, 1), (1, 1))]
                steps = [merging.norm, merging.reduction]
                first, second = steps if kind is PatchMerging else steps[::-1]
                want = second(first(torch.cat(four)))
                torch.testing.assert_close(got[b, y * coarse.w + x_], want)


def test_the_order_matters():
    merging = PatchMerging(1, 4)
    with torch.no_grad():
        merging.reduction.weight.copy_(torch.eye(4))
    got, _ = merging(torch.tensor([[[1.0], [2.0], [3.0], [4.0]]]), Grid(2, 2))
    assert got[0, 0].argsort().tolist() == [0, 2, 1, 3]  # 1 (0,0), 3 (1,0), 2 (0,1), 4 (1,1)


@pytest.mark.parametrize("size", [(1, 1), (2, 4), (5, 7)])
def test_conv_merging_is_a_strided_convolution(size):
    grid, merging = Grid(*size), ConvMerging(3, 4)
    x = torch.randn(2, grid.tokens, 3)
    plain = x.view(2, *size, 3).permute(0, 3, 1, 2).contiguous()
    want = conv2d(plain, merging.reduction.weight, merging.reduction.bias, stride=2, padding=1)
    got, coarse = merging(x, grid)
    torch.testing.assert_close(coarse.cells(got), want.permute(0, 2, 3, 1))


def test_no_merging_changes_nothing():
    x = torch.randn(1, 6, 2)
    got, grid = NoMerging()(x, Grid(2, 3))
    assert got is x
    assert grid == Grid(2, 3)
