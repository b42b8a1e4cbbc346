"""Compiled convolutions against PyTorch's in fp64: borders, strides and channels of every kind."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, layer_norm

from closeness import drawn, steps_off, with_threads
from vitrail.native.convolution import convolve, pack_convolution
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.norms import LaneNorm

# Side of the filters, step, padding; side by side, overlapping, with holes between.
WINDOWS = [(1, 1, 0), (2, 2, 0), (3, 2, 1), (3, 1, 1), (7, 4, 2), (5, 1, 4), (2, 3, 0)]


def plain(x, weight, bias, stride, padding):
    y = conv2d(x.double().permute(0, 3, 1, 2), weight.double(), bias, stride, padding)
    return y.permute(0, 2, 3, 1)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize(("channels", "outputs"), [(1, 3), (3, 16), (8, 20), (24, 70)])
def test_convolution_equals_pytorch(window, channels, outputs, dtype):
    size, stride, padding = window
    weight, bias = drawn(outputs, channels, size, size, dtype=dtype).float(), torch.randn(outputs)
    for height, width in ((7, 7), (8, 13), (21, 9)):
        x = drawn(2, height, width, channels, dtype=dtype)
        got = convolve(x, pack_convolution(weight, bias, stride, padding, dtype))
        assert steps_off(got, plain(x, weight, bias.double(), stride, padding)) < 1
        kept = convolve(x, pack_convolution(weight, bias, stride, padding, dtype), dtype=RESIDUAL[dtype])
        assert steps_off(kept, plain(x, weight, bias.double(), stride, padding)) < 1


@pytest.mark.parametrize("outputs", [5, 16, 70, 130])
def test_a_norm_follows(outputs, dtype):
    norm = nn.LayerNorm(outputs, eps=1e-3)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(outputs))
        norm.bias.copy_(torch.randn(outputs))
    x, weight = drawn(2, 9, 6, 4, dtype=dtype), drawn(outputs, 4, 3, 3, dtype=dtype).float()
    want = layer_norm(
        plain(x, weight, None, 2, 1), (outputs,), norm.weight.double(), norm.bias.double(), eps=norm.eps
    ).detach()
    got = convolve(x, pack_convolution(weight, None, 2, 1, dtype), LaneNorm.of(norm))
    assert steps_off(got, want) < 2
    kept = convolve(x, pack_convolution(weight, None, 2, 1, dtype), LaneNorm.of(norm), RESIDUAL[dtype])
    assert kept.dtype == RESIDUAL[dtype] and steps_off(kept, want) < 2


def test_channels_first_images_are_read(dtype):
    images, weight = drawn(2, 3, 19, 16, dtype=dtype), drawn(8, 3, 3, 3, dtype=dtype).float()
    packed = pack_convolution(weight, None, 2, 1, dtype)
    cells = images.permute(0, 2, 3, 1)
    assert torch.equal(convolve(cells, packed), convolve(cells.contiguous(), packed))


def test_threads_do_not_change_the_output(dtype):
    x, packed = drawn(2, 40, 41, 8, dtype=dtype), pack_convolution(torch.randn(64, 8, 3, 3), None, 2, 1, dtype)
    assert torch.equal(convolve(x, packed), with_threads(lambda: convolve(x, packed)))
