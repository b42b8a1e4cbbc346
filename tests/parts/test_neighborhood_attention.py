"""The mixer around neighborhood attention: projections, padding, and the attended cells."""

import pytest
import torch
from torch import nn
from torch.nn.functional import pad

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.kernels.neighborhood import reference
from vitrail.parts.embeddings import ConvTokenizer
from vitrail.parts.merging import NormedConvMerging
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention
from vitrail.parts.token_mixers.window_attention import WindowAttention


def drawn(module: nn.Module) -> nn.Module:
    """Draw every parameter, so that nothing agrees because it is zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module.double()


def slowly(mixer: NeighborhoodAttention, x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Pad as the authors do, project, attend by the reference, crop, project."""
    kernel_size, dilation = mixer.attend.kernel_size, mixer.attend.dilation
    least = kernel_size * dilation
    cells = x.reshape(len(x), grid.h, grid.w, -1)
    cells = pad(cells, (0, 0, 0, max(0, least - grid.w), 0, max(0, least - grid.h)))
    q, k, v = (part.unflatten(-1, (mixer.num_heads, -1)) for part in mixer.qkv(cells).chunk(3, -1))
    mixed = reference(q, k, v, mixer.position.table, kernel_size, dilation).flatten(3)
    return mixer.proj(mixed)[:, : grid.h, : grid.w].flatten(1, 2)


@pytest.mark.parametrize("grid", [Grid(6, 6), Grid(7, 11), Grid(5, 9), Grid(8, 3), Grid(1, 1), Grid(1, 20), Grid(5, 5)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_any_grid_is_padded_as_the_authors_do(grid, dilation):
    mixer = drawn(NeighborhoodAttention(6, num_heads=2, kernel_size=3, dilation=dilation))
    x = torch.randn(2, grid.tokens, 6, dtype=torch.float64)
    torch.testing.assert_close(mixer(x, grid), slowly(mixer, x, grid))


def test_on_a_grid_of_one_neighborhood_it_is_window_attention():
    ours, swins = NeighborhoodAttention(12, 3, kernel_size=5), WindowAttention(12, 3, window_size=5)
    drawn(swins)
    ours.double().load_state_dict(swins.state_dict())
    x = torch.randn(2, 25, 12, dtype=torch.float64)
    torch.testing.assert_close(ours(x, Grid(5, 5)), swins(x, Grid(5, 5)))


@pytest.mark.parametrize(("grid", "dilation"), [(Grid(7, 8), 2), (Grid(2, 9), 1), (Grid(4, 4), 2)])
def test_attention_reads_its_neighbours_only(grid, dilation):
    mixer = drawn(NeighborhoodAttention(4, num_heads=2, kernel_size=3, dilation=dilation))
    x = torch.randn(1, grid.tokens, 4, dtype=torch.float64, requires_grad=True)
    y, token_index, keys = mixer(x, grid), mixer.token_index(grid), mixer.keys(grid)
    assert sorted(token_index[token_index >= 0].tolist()) == list(range(grid.tokens))
    for cell in range(grid.tokens):
        (slope,) = torch.autograd.grad(y[0, cell].sum(), x, retain_graph=True)
        moved = slope[0].abs().sum(-1).nonzero().flatten().tolist()
        listed = keys[(token_index[:, 0] == cell).nonzero()[0, 0]]
        assert len(listed) == 9
        assert sorted(listed[listed >= 0].tolist()) == moved


def test_a_step_of_training_moves_every_weight():
    mixer = NeighborhoodAttention(8, num_heads=2, kernel_size=3)
    mixer(torch.randn(2, 42, 8), Grid(6, 7)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in mixer.parameters())


@pytest.mark.parametrize("kernel_size", [-1, 0, 1, 2, 4])
def test_a_kernel_without_a_centre_is_refused(kernel_size):
    with pytest.raises(VitrailError, match=f"odd kernel size from 3 up, got {kernel_size}"):
        NeighborhoodAttention(8, num_heads=2, kernel_size=kernel_size)


@pytest.mark.parametrize("dilation", [-1, 0])
def test_a_dilation_of_zero_is_refused(dilation):
    with pytest.raises(VitrailError, match=f"dilation from 1 up, got {dilation}"):
        NeighborhoodAttention(8, num_heads=2, kernel_size=3, dilation=dilation)


def test_heads_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(VitrailError, match="5 heads cannot share 12 channels evenly"):
        NeighborhoodAttention(12, num_heads=5)


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 6), (17, 30)])
def test_the_tokenizer_is_two_convolutions_and_a_norm(size):
    tokenizer, images = ConvTokenizer(3, 8), torch.randn(2, 3, *size)
    x, grid = tokenizer(images)
    assert (grid.h, grid.w) == tuple(-(-n // 4) for n in size)
    first, second = tokenizer.proj
    want = second(first(images)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(x, tokenizer.norm(want))


def test_merging_convolves_then_normalises():
    merging, x = NormedConvMerging(4, 8), torch.randn(2, 15, 4)
    got, grid = merging(x, Grid(3, 5))
    assert grid == Grid(2, 3) and merging.reduction.bias is None
    cells = x.transpose(1, 2).unflatten(2, (3, 5))
    want = nn.functional.conv2d(cells, merging.reduction.weight, stride=2, padding=1)
    torch.testing.assert_close(got, merging.norm(want.flatten(2).transpose(1, 2)))
    assert got.mean(-1).abs().max() < 1e-6
