"""Compiled convolutions, group norms and pooling against PyTorch's in fp64, at every remainder of lines and places."""

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, group_norm, max_pool2d, pad, relu

from closeness import CLOSE, drawn, off, with_threads
from vitrail.native import convolution as room
from vitrail.native.bottleneck import (
    GELU,
    NONE,
    RELU,
    Affine,
    GroupScale,
    Window,
    convolve,
    convolve_shifted,
    finalize,
    join,
    measure,
    pack_filters,
    pool,
)
from vitrail.native.build import refusal
from vitrail.native.dtypes import RESIDUAL
from vitrail.parts.convolutions import same_padding

SIZES = [(1, 1), (2, 3), (7, 5), (9, 16), (30, 41)]
WINDOWS = [Window(1, 1), Window(1, 2), Window(3, 1), Window(3, 2), Window(7, 2)]


def a_map(batch: int, size: tuple[int, int], channels: int, dtype: torch.dtype) -> Tensor:
    return drawn(batch, size[0] * size[1], channels, dtype=dtype).to(RESIDUAL[dtype])  # products take it exactly


def as_map(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x.double().unflatten(1, size).permute(0, 3, 1, 2)


def as_tokens(cells: Tensor) -> Tensor:
    return cells.permute(0, 2, 3, 1).flatten(1, 2)


def padded(cells: Tensor, window: Window) -> Tensor:
    if window.same:
        return pad(cells, same_padding(cells, window.side, window.stride))
    return pad(cells, (window.side // 2,) * 4)


def random_affine(batch: int, channels: int) -> Affine:
    return Affine(torch.randn(batch, channels), torch.randn(batch, channels))


def activated(cells: Tensor, norm: Affine) -> Tensor:
    return relu(cells * norm.scale.double()[:, :, None, None] + norm.shift.double()[:, :, None, None])


def weights(outputs: int, inputs: int, window: Window, dtype: torch.dtype) -> Tensor:
    return torch.randn(outputs, inputs, window.side, window.side).to(dtype).float()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [*WINDOWS, *(window._replace(same=True) for window in WINDOWS)])
def test_convolution_equals_pytorch(size: tuple[int, int], window: Window, dtype: torch.dtype) -> None:
    x, weight = a_map(2, size, 32, dtype), weights(80, 32, window, dtype)
    filters, norm = pack_filters(weight, window, dtype), random_affine(2, 32)
    cells = as_map(x, size)
    want = conv2d(padded(cells, window), weight.double(), None, window.stride)
    got, places, _ = convolve(x, size, filters)
    assert places == want.shape[2:] and off(got, as_tokens(want)) < CLOSE[RESIDUAL[dtype]]

    seen = activated(cells, norm).to(dtype).double()  # it is rounded before it is multiplied
    want = as_tokens(conv2d(padded(seen, window), weight.double(), None, window.stride))
    add = torch.randn(want.shape).to(RESIDUAL[dtype])
    assert off(convolve(x, size, filters, norm, add)[0], want + add.double()) < CLOSE[RESIDUAL[dtype]]


@pytest.mark.parametrize("activation", [NONE, RELU, GELU])
@pytest.mark.parametrize("size", [*SIZES, (5, 62)])  # with 32 channels, 64 padded columns are a page of bf16
@pytest.mark.parametrize("window", WINDOWS)
def test_a_shifted_convolution_equals_pytorch(
    window: Window, size: tuple[int, int], activation: int, dtype: torch.dtype
) -> None:
    weight, shift, norm = weights(48, 32, window, dtype), torch.randn(48), random_affine(2, 32)
    filters, kinds = pack_filters(weight, window, dtype), {dtype, RESIDUAL[dtype]}
    for before, after in product(kinds, kinds):
        x = a_map(2, size, 32, dtype).to(before)
        for act in (None, norm):
            cells = as_map(x, size).double()
            seen = cells if act is None else activated(cells, act)
            want = conv2d(padded(seen.to(dtype).double(), window), weight.double(), shift.double(), window.stride)
            add = torch.randn(as_tokens(want).shape).to(after)
            for more in (None, add):
                expected = as_tokens(want) + (0 if more is None else more.double())
                got, places = convolve_shifted(x, size, filters, shift, act, more, dtype=after, activation=activation)
                assert places == want.shape[2:] and got.dtype == after
                assert (
                    off(got, {NONE: expected, RELU: expected.relu(), GELU: gelu(expected)}[activation]) < CLOSE[after]
                )


def test_memory_between_rows_is_not_read(dtype: torch.dtype) -> None:
    size, window = (3, 2046 if dtype == torch.bfloat16 else 1022), Window(3, 1)  # padded, a row is a whole page
    images, filters = torch.randn(1, 1, *size).to(RESIDUAL[dtype]), pack_filters(torch.ones(16, 1, 3, 3), window, dtype)
    convolve_shifted(torch.full_like(images, float("nan")), size, filters, torch.zeros(16))  # leaves a band of NaN
    assert convolve_shifted(images, size, filters, torch.zeros(16))[0].isfinite().all()


def test_a_shifted_convolution_keeps_nan_where_it_is(dtype: torch.dtype) -> None:
    images, filters = torch.randn(1, 2, 3, 20), pack_filters(torch.ones(16, 2, 3, 3), Window(3, 1), dtype)
    images[0, 0, 1, 7] = float("nan")
    got = as_map(convolve_shifted(images.to(RESIDUAL[dtype]), (3, 20), filters, torch.zeros(16))[0], (3, 20))
    assert got[..., 6:9].isnan().all() and got.isnan().sum() == 16 * 3 * 3


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("window", [Window(7, 2), Window(7, 2, same=True), Window(3, 2)])
def test_channels_first_images_are_read(channels: int, window: Window, dtype: torch.dtype) -> None:
    images, weight = (
        torch.randn(2, channels, 13, 22).to(dtype).to(RESIDUAL[dtype]),
        weights(32, channels, window, dtype),
    )
    want = conv2d(padded(images.double(), window), weight.double(), None, window.stride)
    got, places, _ = convolve(images, (13, 22), pack_filters(weight, window, dtype))
    assert places == want.shape[2:] and off(got, as_tokens(want)) < CLOSE[RESIDUAL[dtype]]


def test_results_are_written_to_the_given_tensor() -> None:
    if refusal(torch.float32):
        pytest.skip(str(refusal(torch.float32)))
    x, filters = (
        a_map(3, (4, 5), 32, torch.float32),
        pack_filters(torch.randn(16, 32, 3, 3), Window(3, 1), torch.float32),
    )
    room_for_all = torch.zeros(5, 20, 16)
    got = convolve(x, (4, 5), filters, into=room_for_all[1:4])[0]
    assert torch.equal(room_for_all[1:4], got) and torch.equal(got, convolve(x, (4, 5), filters)[0])
    assert not room_for_all[0].any() and not room_for_all[4].any()


@pytest.mark.parametrize("far", [0.0, 1000.0])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (40, 31)])  # the last in several chunks
def test_moments_give_group_norm(size: tuple[int, int], far: float) -> None:
    if refusal(torch.float32):
        pytest.skip(str(refusal(torch.float32)))
    x = torch.randn(2, size[0] * size[1], 64) * torch.linspace(0.5, 2, 64) + torch.randn(64) + far
    norm = GroupScale(torch.randn(64), torch.randn(64), 8, 1e-5)
    want = group_norm(as_map(x, size), 8, norm.weight.double(), norm.bias.double(), 1e-5)
    eye = pack_filters(torch.eye(64)[:, :, None, None], Window(1, 1), torch.float32)
    for moments in (measure(x), convolve(x, size, eye)[2]):
        scale, shift = finalize(moments, norm)
        assert scale.shape == shift.shape == (2, 64)
        got = x.double() * scale.double()[:, None] + shift.double()[:, None]
        assert off(got, as_tokens(want)) < (1e-6 if far == 0 else 1e-3)  # shifts of thousands are rounded to 1e-4


def test_moments_are_those_of_the_sum(dtype: torch.dtype) -> None:
    size, window = (17, 29), Window(3, 1)
    x, add, weight = a_map(2, size, 32, dtype), a_map(2, size, 64, dtype), weights(64, 32, window, dtype)
    y, _, moments = convolve(x, size, pack_filters(weight, window, dtype), add=add)
    norm = GroupScale(torch.ones(64), torch.zeros(64), 32, 1e-5)
    got, want = finalize(moments, norm), finalize(measure(y), norm)
    assert off(got.scale, want.scale.double()) < CLOSE[dtype]
    assert (got.shift - want.shift).abs().max() < CLOSE[dtype]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("same", [False, True])
def test_pooling_takes_the_largest_and_zeros_beyond(size: tuple[int, int], same: bool, dtype: torch.dtype) -> None:
    window, x, norm = Window(3, 2, same), a_map(2, size, 32, dtype) - 1, random_affine(2, 32)
    got, places = pool(x, size, window)
    want = max_pool2d(padded(as_map(x, size), window), 3, 2)
    assert places == want.shape[2:] and torch.equal(got.double(), as_tokens(want))
    want = max_pool2d(padded(activated(as_map(x, size), norm), window), 3, 2)
    assert off(pool(x, size, window, norm)[0], as_tokens(want)) < CLOSE[RESIDUAL[dtype]]


def test_maps_are_added(dtype: torch.dtype) -> None:
    size = (6, 5)
    x, z, norm_x, norm_z = *(a_map(2, size, 32, dtype) for _ in "xz"), random_affine(2, 32), random_affine(2, 32)

    def scaled(cells: Tensor, norm: Affine) -> Tensor:
        return cells.double() * norm.scale.double()[:, None] + norm.shift.double()[:, None]

    assert off(join(x, None, z, norm_z), relu(x.double() + scaled(z, norm_z))) < CLOSE[RESIDUAL[dtype]]
    assert off(join(x, norm_x, z, norm_z), relu(scaled(x, norm_x) + scaled(z, norm_z))) < CLOSE[RESIDUAL[dtype]]


def test_threads_do_not_change_the_output(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    filters, norm = pack_filters(torch.randn(144, 32, 3, 3), Window(3, 1), dtype), random_affine(1, 32)
    monkeypatch.setattr(room, "CHUNK_ROWS", 60)
    for size in ((2, 5), (20, 31)):  # few rows share out filters, many share out lines
        x = a_map(1, size, 32, dtype)
        alone = convolve(x, size, filters, norm)
        together = with_threads(lambda x=x, size=size: convolve(x, size, filters, norm), threads=3)
        assert torch.equal(alone[0], together[0]) and torch.equal(alone[2].values, together[2].values)
