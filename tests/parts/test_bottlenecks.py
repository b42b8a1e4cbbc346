"""Bottlenecks against the same sums written out on plain channels-first maps."""

import pytest
import torch
from torch.nn.functional import conv2d, group_norm, pad, relu

from vitrail.grid import Grid
from vitrail.parts.bottlenecks import (
    PostActivationBottleneck,
    PostActivationEntry,
    PreActivationBottleneck,
    PreActivationEntry,
)


def standardised(conv) -> torch.Tensor:
    w = conv.weight
    mean = w.mean(dim=(1, 2, 3), keepdim=True)
    return (w - mean) / (w.var(dim=(1, 2, 3), keepdim=True, correction=0) + 1e-8).sqrt()


def norm(layer, x):
    return group_norm(x, 32, layer.weight, layer.bias)


def same_conv(conv, x, stride=1):
    """Pad so that n becomes ceil(n / stride), the odd zero at the right and bottom."""
    k, (h, w) = conv.kernel_size[0], x.shape[2:]
    rows, columns = (max((-(-n // stride) - 1) * stride + k - n, 0) for n in (h, w))
    x = pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
    return conv2d(x, standardised(conv), stride=stride)


def pre_branch(m, a, stride):
    a = conv2d(a, standardised(m.conv1))
    a = conv2d(relu(norm(m.norm2, a)), standardised(m.conv2), stride=stride, padding=1)
    return conv2d(relu(norm(m.norm3, a)), standardised(m.conv3))


def post_branch(m, x, stride):
    x = relu(norm(m.norm1, same_conv(m.conv1, x)))
    x = relu(norm(m.norm2, same_conv(m.conv2, x, stride)))
    return norm(m.norm3, same_conv(m.conv3, x))


def pre_block(m, x, stride):
    return x + pre_branch(m, relu(norm(m.norm1, x)), stride)


def pre_entry(m, x, stride):
    a = relu(norm(m.norm1, x))
    return conv2d(a, standardised(m.proj), stride=stride) + pre_branch(m, a, stride)


def post_block(m, x, stride):
    return relu(x + post_branch(m, x, stride))


def post_entry(m, x, stride):
    return relu(norm(m.proj_norm, same_conv(m.proj, x, stride)) + post_branch(m, x, stride))


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (6, 3)])
@pytest.mark.parametrize(
    ("bottleneck", "written_out", "stride"),
    [
        (PreActivationBottleneck, pre_block, 1),
        (PreActivationEntry, pre_entry, 1),
        (PreActivationEntry, pre_entry, 2),
        (PostActivationBottleneck, post_block, 1),
        (PostActivationEntry, post_entry, 1),
        (PostActivationEntry, post_entry, 2),
    ],
)
def test_written_out(bottleneck, written_out, stride, size):
    dim = 128 if bottleneck in (PreActivationBottleneck, PostActivationBottleneck) else 64
    module, grid = bottleneck(dim, 128, stride).double(), Grid(*size)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    images = torch.randn(2, dim, *size, dtype=torch.double)
    before = images.clone()
    got = module(images.permute(0, 2, 3, 1).flatten(1, 2), grid)
    got, grid = got if isinstance(got, tuple) else (got, grid)
    torch.testing.assert_close(grid.cells(got), written_out(module, images, stride).permute(0, 2, 3, 1))
    assert torch.equal(images, before)  # in-place operations act on the bottleneck's own results only


@pytest.mark.parametrize("bottleneck", [PreActivationEntry, PostActivationEntry])
def test_no_step_leaves_the_channels_last_layout(bottleneck):
    x, grid = torch.randn(2, 30, 64), Grid(5, 6)
    seen = []
    module = bottleneck(64, 128, 2)
    for child in module.children():
        child.register_forward_hook(lambda child, args, out: seen.append(out))
    assert module(x, grid)[0].is_contiguous()
    assert len(seen) >= 7
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out in seen)


def test_a_fresh_block_after_activation_starts_as_the_identity():
    x = torch.rand(1, 9, 128)
    torch.testing.assert_close(PostActivationBottleneck(128, 128)(x, Grid(3, 3)), x)
