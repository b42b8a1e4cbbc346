"""A fixed number of blocks: against attention in each block alone."""

import pytest
import torch

from vitrail.grid import Grid
from vitrail.parts.conv_pool_merging import ConvPoolMerging
from vitrail.parts.convolutions import SameMaxPool2d
from vitrail.parts.even_blocks import EvenBlocks
from vitrail.parts.positions import NoPosition
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.window_attention import WindowAttention

GRIDS = [(1, 1), (1, 7), (3, 5), (8, 8), (11, 2)]
every_grid = pytest.mark.parametrize("size", GRIDS)


def mixer_of(blocks: int) -> WindowAttention:
    return WindowAttention(4, 2, window_size=blocks, cut=EvenBlocks, position=NoPosition()).double()


def global_attention(mixer: WindowAttention) -> SelfAttention:
    same = SelfAttention(4, 2).double()
    same.load_state_dict(mixer.state_dict())
    return same


@every_grid
@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_blocks_are_as_large_as_the_map_needs(size, blocks):
    """Each block is attention among its own cells, whatever padding there is."""
    grid, mixer = Grid(*size), mixer_of(blocks)
    rows, columns = (-(-n // blocks) for n in size)
    x = torch.randn(2, grid.tokens, 4, dtype=torch.double, requires_grad=True)
    cells, want = grid.cells(x), torch.zeros(2, *size, 4, dtype=torch.double)
    for y in range(0, grid.h, rows):
        for x_ in range(0, grid.w, columns):
            block = cells[:, y : y + rows, x_ : x_ + columns]
            mixed = global_attention(mixer)(block.flatten(1, 2), Grid(*block.shape[1:3]))
            want[:, y : y + rows, x_ : x_ + columns] = mixed.unflatten(1, block.shape[1:3])
    got = mixer(x, grid)
    torch.testing.assert_close(got, want.flatten(1, 2))
    weights = torch.randn_like(got)
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (got, want.flatten(1, 2))]
    torch.testing.assert_close(*gradients)


@every_grid
def test_one_block_is_global_attention(size):
    grid, mixer = Grid(*size), mixer_of(1)
    x = torch.randn(2, grid.tokens, 4, dtype=torch.double)
    torch.testing.assert_close(mixer(x, grid), global_attention(mixer)(x, grid))


@every_grid
@pytest.mark.parametrize("same", [False, True])
def test_aggregation_against_a_loop(size, same):
    grid = Grid(*size)
    merging = ConvPoolMerging(2, 3, SameMaxPool2d(3, 2) if same else torch.nn.MaxPool2d(3, 2, padding=1)).double()
    torch.nn.init.normal_(merging.conv.weight)
    x = torch.randn(1, grid.tokens, 2, dtype=torch.double)
    cells = x[0].unflatten(0, size)
    normed = {}
    for y in range(grid.h):
        for x_ in range(grid.w):
            total = merging.conv.bias
            for i, j in ((i, j) for i in range(3) for j in range(3)):
                if 0 <= y + i - 1 < grid.h and 0 <= x_ + j - 1 < grid.w:
                    total = total + merging.conv.weight[:, :, i, j] @ cells[y + i - 1, x_ + j - 1]
            normed[y, x_] = merging.norm(total)
    got, coarse = merging(x, grid)
    assert coarse == Grid((grid.h + 1) // 2, (grid.w + 1) // 2)
    # SAME padding of an even side is a zero at the end alone, so a window starts at its own cells.
    first = [0 if same and n % 2 == 0 else -1 for n in size]
    for y in range(coarse.h):
        for x_ in range(coarse.w):
            near = [(2 * y + first[0] + i, 2 * x_ + first[1] + j) for i in range(3) for j in range(3)]
            want = torch.stack([normed[place] for place in near if place in normed]).amax(0)
            torch.testing.assert_close(got[0, y * coarse.w + x_], want)
