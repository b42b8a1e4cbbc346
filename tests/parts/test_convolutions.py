"""Convolutions on tokens: standardised filters, TensorFlow's padding, and views that move no memory."""

import pytest
import torch
from torch.nn.functional import conv2d

from vitrail.grid import Grid
from vitrail.parts.convolutions import (
    SameMaxPool2d,
    SameStdConv2d,
    StdConv2d,
    channels_last,
    same_padding,
    standardise,
    to_map,
    to_tokens,
)


def test_a_map_is_a_view_of_its_tokens_and_back():
    x = torch.randn(2, 15, 4)
    cells = to_map(x, Grid(3, 5))
    assert cells.shape == (2, 4, 3, 5)
    assert cells.data_ptr() == x.data_ptr()
    assert cells.is_contiguous(memory_format=torch.channels_last)
    again, grid = to_tokens(cells)
    assert again.data_ptr() == x.data_ptr()
    assert torch.equal(again, x)
    assert grid == Grid(3, 5)


def test_tokens_with_a_prefix_are_no_map():
    with pytest.raises(AssertionError):
        to_map(torch.zeros(1, 7, 2), Grid(2, 3, prefix=1))


def test_channels_last_moves_memory_and_no_value():
    images = torch.randn(2, 3, 4, 5)
    assert torch.equal(channels_last(images), images)
    assert channels_last(images).is_contiguous(memory_format=torch.channels_last)


def test_each_filter_has_mean_zero_and_variance_one():
    weight = torch.randn(5, 3, 2, 2, dtype=torch.double) * 3 + 7
    got = standardise(weight, eps=0.0)
    for filter_, w in zip(got, weight, strict=True):
        mean = sum(w.flatten().tolist()) / 12
        variance = sum((v - mean) ** 2 for v in w.flatten().tolist()) / 12
        torch.testing.assert_close(filter_, (w - mean) / variance**0.5)


def test_scale_and_offset_of_a_filter_do_not_matter():
    conv, x = StdConv2d(3, 4, 3), torch.randn(2, 3, 6, 6)
    want = conv(x)
    with torch.no_grad():
        conv.weight.mul_(5).add_(2)
    torch.testing.assert_close(conv(x), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
def test_std_convolution_pads_half_its_kernel(kernel, stride):
    conv, x = StdConv2d(3, 4, kernel, stride), torch.randn(2, 3, 9, 8)
    torch.testing.assert_close(conv(x), conv2d(x, standardise(conv.weight), None, stride, kernel // 2))


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("n", range(1, 12))
def test_same_padding_gives_a_cell_to_each_step(n, kernel, stride):
    left, right, top, bottom = same_padding(torch.zeros(1, 1, n, n + 1), kernel, stride)
    assert right - left in (0, 1)
    assert bottom - top in (0, 1)
    conv = SameStdConv2d(1, 1, kernel, stride)
    assert conv(torch.zeros(1, 1, n, n + 1)).shape == (1, 1, -(-n // stride), -(-(n + 1) // stride))


def test_same_padding_is_symmetric_only_where_it_can_be():
    odd, even = torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 6, 6)
    assert same_padding(odd, 3, 2) == (1, 1, 1, 1)
    assert same_padding(even, 3, 2) == (0, 1, 0, 1)
    assert same_padding(even, 7, 2) == (2, 3, 2, 3)


@pytest.mark.parametrize("size", [(1, 1), (4, 5), (6, 6)])
def test_the_pool_never_picks_its_padding(size):
    cells = -torch.rand(1, 2, *size) - 1
    got = SameMaxPool2d(3, 2)(cells)
    _, _, h, w = got.shape
    left, _, top, _ = same_padding(cells, 3, 2)
    for y in range(h):
        for x in range(w):
            rows = slice(max(2 * y - top, 0), 2 * y - top + 3)
            columns = slice(max(2 * x - left, 0), 2 * x - left + 3)
            assert torch.equal(got[0, :, y, x], cells[0, :, rows, columns].amax(dim=(1, 2)))
