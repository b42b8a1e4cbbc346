"""Neighborhood attention against its definition in loops, and against identities."""

import subprocess
import sys

import pytest
import torch
from neighborhood_loops import nearest, neighborhood_attention
from torch.autograd import gradcheck
from torch.utils.flop_counter import FlopCounterMode

from vitrail.errors import VitrailError
from vitrail.kernels.attention.reference import attend as global_attention
from vitrail.kernels.neighborhood import neighborhood, reference, tiles
from vitrail.kernels.neighborhood.tiling import Axis
from vitrail.kernels.neighborhood.unfold import cut_patches, fold_patches
from vitrail.kernels.neighborhood.window import neighbours
from vitrail.parts.positions import relative_index

every_backend = pytest.mark.parametrize("attend", [reference, tiles], ids=["reference", "tiled_sdpa"])


def draw(height, width, kernel_size, batch=2, heads=2, d=4, dtype=torch.float64):
    """Draw queries, keys and values as a mixer has them, views of one product, and a table of biases."""
    qkv = torch.randn(batch, height, width, 3, heads, d, dtype=dtype, requires_grad=True)
    bias = torch.randn((2 * kernel_size - 1) ** 2, heads, dtype=dtype, requires_grad=True)
    return qkv, bias


# Height, width, kernel, dilation: a map of one window, borders only, one tile, two, three and more, groups of unequal
# length on either axis or both, long and flat maps, every published kernel.
CASES = [
    (3, 3, 3, 1),
    (4, 7, 3, 1),
    (9, 10, 3, 1),
    (8, 6, 3, 2),
    (7, 9, 3, 2),
    (10, 9, 3, 3),
    (13, 6, 3, 2),
    (5, 5, 5, 1),
    (6, 16, 5, 1),
    (11, 15, 5, 2),
    (7, 7, 7, 1),
    (8, 11, 7, 1),
    (14, 14, 7, 1),
    (14, 15, 7, 2),
    (7, 23, 7, 1),
    (11, 12, 11, 1),
    (13, 14, 13, 1),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_and_gradients_are_those_of_the_loops(case):
    height, width, kernel_size, dilation = case
    qkv, bias = draw(height, width, kernel_size, d=3)
    want = neighborhood_attention(*qkv.unbind(3), bias, kernel_size, dilation)
    towards = torch.randn_like(want)
    slopes = torch.autograd.grad(want, (qkv, bias), towards)
    for attend in (reference, tiles):
        got = attend(*qkv.unbind(3), bias, kernel_size, dilation)
        torch.testing.assert_close(got, want)
        for mine, theirs in zip(torch.autograd.grad(got, (qkv, bias), towards), slopes, strict=True):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("kernel_size", [3, 5, 7, 9, 11, 13])
@pytest.mark.parametrize("dilation", [1, 2, 3, 8])
def test_tiles_are_the_reference_at_any_size(kernel_size, dilation):
    least = kernel_size * dilation
    for more in [(0, 1), (2, dilation + 3), (kernel_size + 1, 0), (5, 2 * kernel_size - 1)]:
        qkv, bias = draw(least + more[0], least + more[1], kernel_size, batch=1, heads=1, d=2)
        sizes = (kernel_size, dilation)
        got, want = (attend(*qkv.unbind(3), bias, *sizes) for attend in (tiles, reference))
        torch.testing.assert_close(got, want)
        towards = torch.randn_like(got)
        for mine, theirs in zip(*(torch.autograd.grad(out, (qkv, bias), towards) for out in (got, want)), strict=True):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("size", [(4, 5, 1), (7, 9, 1), (6, 7, 2)])
def test_the_gradient_of_tiles_is_the_finite_difference(size):
    height, width, dilation = size
    qkv, bias = draw(height, width, 3, batch=1, heads=1, d=2)
    assert gradcheck(lambda qkv, bias: tiles(*qkv.unbind(3), bias, 3, dilation), (qkv, bias))


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 2e-6), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("case", [(15, 22, 7, 1), (17, 14, 7, 2)], ids=str)
def test_lower_precision_is_close(dtype, most, case):
    *size, kernel_size, dilation = case
    qkv, bias = draw(*size, kernel_size, d=16)
    want = reference(*qkv.unbind(3), bias, kernel_size, dilation)
    towards = torch.randn_like(want)
    exact = [want, *torch.autograd.grad(want, (qkv, bias), towards)]
    qkv, bias = (x.detach().to(dtype).requires_grad_() for x in (qkv, bias))
    got = tiles(*qkv.unbind(3), bias, kernel_size, dilation)
    assert got.dtype == dtype
    rounded = [got, *torch.autograd.grad(got, (qkv, bias), towards.to(dtype))]
    for mine, theirs in zip(rounded, exact, strict=True):
        assert (mine - theirs).norm() <= most * theirs.norm()


def test_a_table_in_fp32_serves_queries_of_half_the_width():
    qkv, bias = draw(9, 8, 3, dtype=torch.bfloat16)
    got = tiles(*qkv.unbind(3), bias.detach().float(), 3, 1)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, tiles(*qkv.unbind(3), bias.detach(), 3, 1))


@every_backend
@pytest.mark.parametrize("side", [3, 5, 7])
def test_a_kernel_that_covers_the_map_is_global_attention(attend, side):
    qkv, bias = draw(side, side, side)
    index = relative_index(side, side).flatten(2, 3).flatten(0, 1)
    flat = [x.flatten(1, 2).transpose(1, 2) for x in qkv.unbind(3)]  # (B, h, N, d)
    want = global_attention(*flat, bias[index].permute(2, 0, 1))
    torch.testing.assert_close(attend(*qkv.unbind(3), bias, side, 1).flatten(1, 2).transpose(1, 2), want)


@every_backend
@pytest.mark.parametrize("size", [(12, 12), (13, 14), (9, 11)])
def test_a_dilation_is_plain_attention_on_every_group_by_itself(attend, size):
    qkv, bias = draw(*size, 3)
    got = attend(*qkv.unbind(3), bias, 3, 3)
    for y in range(3):
        for x in range(3):
            alone = attend(*qkv[:, y::3, x::3].unbind(3), bias, 3, 1)
            torch.testing.assert_close(got[:, y::3, x::3], alone)


@every_backend
@pytest.mark.parametrize("dilation", [1, 2])
def test_attention_is_translation_equivariant_away_from_the_border(attend, dilation):
    qkv, bias = draw(20, 23, 5)
    whole = attend(*qkv.unbind(3), bias, 5, dilation)
    moved = attend(*qkv[:, 3:, 2:].unbind(3), bias, 5, dilation)
    edge = 2 * dilation
    torch.testing.assert_close(whole[:, 3:, 2:][:, edge:-edge, edge:-edge], moved[:, edge:-edge, edge:-edge])
    assert not torch.allclose(whole[:, 3, 2:], moved[:, 0])  # at a border it sees the cells that the border cut off


@every_backend
def test_attention_is_mirror_equivariant_with_a_mirrored_table(attend):
    qkv, bias = draw(10, 17, 5)
    table = bias.unflatten(0, (9, 9))
    for axis in (1, 2):
        mirrored = attend(*qkv.flip(axis).unbind(3), table.flip(axis - 1).flatten(0, 1), 5, 2)
        torch.testing.assert_close(mirrored.flip(axis), attend(*qkv.unbind(3), bias, 5, 2))


@every_backend
def test_constant_values_are_restored(attend):
    qkv, bias = draw(11, 15, 5)
    q, k, v = qkv.unbind(3)
    constant = v[:, :1, :1].expand_as(v)
    torch.testing.assert_close(attend(q, k, constant, bias, 5, 2), constant)


def test_a_strong_bias_picks_the_neighbour_at_its_offset():
    qkv, _ = draw(9, 12, 3)
    bias = torch.full((5, 5, 2), -1e4, dtype=torch.float64)
    bias[1, 2] = 0  # the key one step below the query, in the same column
    q, k, v = qkv.unbind(3)
    for attend in (reference, tiles):
        got = attend(q, k, v, bias.flatten(0, 1), 3, 2)
        torch.testing.assert_close(got[:, :-2], v[:, 2:])


def test_images_of_a_batch_are_independent():
    qkv, bias = draw(10, 13, 5, batch=3)
    together = tiles(*qkv.unbind(3), bias, 5, 2)
    for i in range(3):
        torch.testing.assert_close(tiles(*qkv[i : i + 1].unbind(3), bias, 5, 2), together[i : i + 1])


def test_gradients_are_the_same_bits_each_time():
    qkv, bias = draw(22, 29, 7, heads=3, d=8, dtype=torch.float32)
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)  # an operator without a fixed order would raise
    try:
        runs = [torch.autograd.grad(tiles(*qkv.unbind(3), bias, 7, 1).square().sum(), (qkv, bias)) for _ in range(3)]
    finally:
        torch.use_deterministic_algorithms(strict)
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for again in runs[1:] for a, b in zip(runs[0], again, strict=True))


def test_neighbours_are_the_nearest_cells_of_the_group():
    for kernel_size, dilation in [(3, 1), (3, 4), (5, 2), (7, 3), (13, 1)]:
        for length in range(kernel_size * dilation, kernel_size * dilation + 9):
            want = [nearest(cell, length, kernel_size, dilation) for cell in range(length)]
            assert neighbours(length, kernel_size, dilation).tolist() == want


@pytest.mark.parametrize("kernel_size", [3, 5, 7, 11])
def test_every_window_is_within_the_patch_of_its_tile(kernel_size):
    for dilation in (1, 2, 5):
        for length in range(kernel_size * dilation, 9 * kernel_size * dilation):
            near = Axis.of(length, kernel_size, dilation).near(torch.device("cpu"))
            assert (near.sum(-1) == kernel_size).all(), (length, dilation)


def test_long_axes_are_cut_into_tiles_as_long_as_the_kernel():
    assert [(a.tiles, a.side, a.patch) for a in (Axis.of(n, 7, 1) for n in (7, 14, 28, 56, 96))] == [
        (1, 7, 7),
        (2, 7, 10),
        (4, 7, 13),
        (8, 7, 13),
        (14, 7, 13),
    ]
    assert [(a.tiles, a.side, a.patch) for a in (Axis.of(n, 7, s) for n, s in ((56, 8), (14, 2), (57, 8)))] == [
        (1, 7, 7),
        (1, 7, 7),
        (1, 8, 8),
    ]


@pytest.mark.parametrize(("size", "step"), [((5, 3), (3, 1)), ((4, 6), (4, 2)), ((7, 5), (2, 2))])
def test_folding_is_the_transpose_of_cutting(size, step):
    x = torch.randn(2, size[0] + 2 * step[0], 2, size[1] + 3 * step[1], 1, 2, 3, dtype=torch.float64)
    patches = cut_patches(x, size, step)
    assert patches.shape == (2, 2, 1, 2, 3, 4, *size, 3)
    weights = torch.randn_like(patches)
    folded = fold_patches(weights, x.shape, step)
    torch.testing.assert_close((patches * weights).sum(), (x * folded).sum())
    x.requires_grad_()
    assert torch.equal(torch.autograd.grad(cut_patches(x, size, step), x, weights)[0], folded)


@pytest.mark.parametrize(("size", "step"), [((5, 3), (3, 1)), ((4, 6), (4, 2)), ((3, 5), (4, 2))])
def test_folding_survives_torch_compile(size, step):
    """They make copies of views that are written to, and put them back."""
    x = torch.zeros(1, size[0] + 2 * step[0], 1, size[1] + 3 * step[1], 1, 1, 2)
    patches = torch.randn_like(cut_patches(x, size, step))
    plain = fold_patches(patches, x.shape, step)
    assert torch.equal(torch.func.functionalize(lambda p: fold_patches(p, x.shape, step))(patches), plain)


@every_backend
@pytest.mark.parametrize(("size", "got"), [((5, 9), 5), ((9, 5), 5)])
def test_a_map_without_room_for_a_neighborhood_is_refused(attend, size, got):
    qkv, bias = draw(*size, 3)
    with pytest.raises(VitrailError, match=f"axis of {got} cells has no neighborhoods of 3 cells 2 apart: they need 6"):
        attend(*qkv.unbind(3), bias, 3, 2)


def test_costs_are_counted_without_the_pairs_that_are_forbidden():
    q, k, v = torch.empty(2, 21, 28, 3, 4, 8, device="meta").unbind(3)
    bias = torch.empty(169, 4, device="meta")
    assert [name for name, reason in neighborhood.explain(q, k, v, bias, 7, 1) if reason is None] == ["reference"]
    with FlopCounterMode(display=False) as counter:
        neighborhood(q, k, v, bias, 7, 1)
    assert counter.get_total_flops() == 2 * 2 * (2 * 21 * 28) * 49 * (4 * 8)


def test_the_fast_backend_runs_if_supported():
    qkv, bias = draw(9, 9, 3, dtype=torch.float32)
    q, k, v = qkv.detach().unbind(3)
    assert dict(neighborhood.explain(q, k, v, bias, 3, 1))["tiled_sdpa"] is None
    assert "floating point" in dict(neighborhood.explain(q.long(), k, v, bias, 3, 1))["tiled_sdpa"]
    exact = [x.double() for x in (q, k, v, bias)]  # fp64 is not for compiled code
    assert torch.equal(neighborhood(*exact, 3, 1), tiles(*exact, 3, 1))


@pytest.mark.slow
def test_a_compiled_step_has_the_gradients_of_a_plain_one():
    # In a process of its own, because the compiler does not see through the checks of shapes that the tests put on.
    code = """
import torch
from vitrail.kernels.neighborhood import tiles
for case in [(15, 23, 5, 1), (15, 23, 5, 2), (8, 9, 7, 1)]:
    height, width, kernel_size, dilation = case
    qkv = torch.randn(2, height, width, 3, 2, 4, requires_grad=True)
    bias = torch.randn((2 * kernel_size - 1) ** 2, 2, requires_grad=True)
    step = lambda qkv, bias: tiles(*qkv.unbind(3), bias, kernel_size, dilation).square().sum()
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for got, want in zip(*(torch.autograd.grad(run(qkv, bias), (qkv, bias)) for run in (compiled, step)), strict=True):
        torch.testing.assert_close(got, want)
    print(case)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
