"""The compiled gradient of neighborhood attention: against loops over cells, in fp64, unsupported inputs."""

import platform
import subprocess
import sys
from functools import partial
from typing import NamedTuple

import pytest
import torch
from neighborhood_loops import neighborhood_attention
from torch import Tensor

from closeness import CLOSE, off, with_threads
from vitrail.grid import Grid
from vitrail.kernels.neighborhood import cpp, neighborhood, reference, tiles
from vitrail.native import build as native_build
from vitrail.native.neighborhood import meeting
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention

# Height, width, kernel, dilation: a map of one window, borders only, one strip and several, groups of unequal
# length on either axis or both, long and flat maps, every published kernel, rows of even and of odd length.
CASES = [
    (3, 3, 3, 1),
    (4, 7, 3, 1),
    (9, 10, 3, 2),
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
    (20, 9, 7, 1),
    (11, 12, 11, 1),
    (13, 30, 11, 1),
    (13, 14, 13, 1),
]


class Case(NamedTuple):
    """A projection `(B, H, W, 3, h, d)` and a table, with gradients, and the gradient of the output."""

    qkv: Tensor
    bias: Tensor
    into: Tensor
    kernel_size: int
    dilation: int

    def exact(self) -> "Case":
        """Return the same case in fp64."""
        return self._replace(**{name: getattr(self, name).detach().double() for name in ("qkv", "bias", "into")})


def draw(dtype: torch.dtype, height: int, width: int, kernel_size: int, dilation: int, heads=2, d=8, batch=2) -> Case:
    """Draw numbers that the precision holds exactly."""
    qkv = torch.randn(batch, height, width, 3, heads, d).to(dtype)
    into = torch.randn(batch, height, width, heads, d).to(dtype)
    return Case(qkv, torch.randn((2 * kernel_size - 1) ** 2, heads), into, kernel_size, dilation)


def learn(attend, case: Case) -> list[Tensor]:
    """Return the answer and the gradients of queries, keys, values and the table."""
    qkv, bias = (x.detach().requires_grad_() for x in (case.qkv, case.bias))
    y = attend(*qkv.unbind(3), bias, case.kernel_size, case.dilation)
    into_qkv, into_bias = torch.autograd.grad(y, (qkv, bias), case.into)
    return [y, *into_qkv.unbind(3), into_bias]


def furthest(got: list[Tensor], want: list[Tensor]) -> float:
    """Return the largest difference as a share of the length that is wanted."""
    return max(off(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("size", CASES, ids=str)
def test_gradients_are_those_of_the_loops(size, dtype):
    case = draw(dtype, *size)
    got = learn(cpp, case)
    assert [x.dtype for x in got] == [dtype] * 4 + [torch.float32]
    assert furthest(got, learn(neighborhood_attention, case.exact())) < CLOSE[dtype]


@pytest.mark.parametrize("kernel_size", [3, 5, 7, 9, 13])
@pytest.mark.parametrize("dilation", [1, 2, 3, 8])
def test_gradients_are_those_of_tiles_at_any_size(kernel_size, dilation, dtype):
    least = kernel_size * dilation
    for more in [(0, 1), (2, dilation + 3), (kernel_size + 1, 0), (5, 2 * kernel_size - 1)]:
        case = draw(dtype, least + more[0], least + more[1], kernel_size, dilation, heads=1, d=2, batch=1)
        assert furthest(learn(cpp, case), learn(tiles, case.exact())) < CLOSE[dtype], more


@pytest.mark.parametrize("d", [2, 6, 16, 24, 36, 64, 66, 130])
def test_heads_of_any_width(d, dtype):
    case = draw(dtype, 9, 8, 7, 1, d=d)
    assert furthest(learn(cpp, case), learn(reference, case.exact())) < CLOSE[dtype]


def test_heads_of_odd_width_in_fp32():
    case = draw(torch.float32, 9, 8, 5, 1, d=5)
    assert furthest(learn(cpp, case), learn(reference, case.exact())) < CLOSE[torch.float32]


def test_large_scores_neither_overflow_nor_vanish(dtype):
    case = draw(dtype, 8, 9, 7, 1)
    case = case._replace(qkv=case.qkv * 16, bias=case.bias * 20)
    assert furthest(learn(cpp, case), learn(reference, case.exact())) < 8 * CLOSE[dtype]


def test_threads_and_runs_do_not_change_a_bit(dtype):
    for size in [(12, 13, 7, 1), (15, 14, 3, 2)]:
        case = draw(dtype, *size, heads=3, batch=7)  # 21 heads of images, which chunks and threads cut unevenly
        alone = learn(cpp, case)
        for threads in (1, 2, 3, 5):
            again = with_threads(partial(learn, cpp, case), threads)
            assert all(torch.equal(a, b) for a, b in zip(alone, again, strict=True)), threads


def test_workspaces_of_a_larger_map_are_not_read(dtype):
    small = draw(dtype, 5, 5, 5, 1, d=4)
    before = learn(cpp, small)
    large = draw(dtype, 19, 23, 7, 1, d=40)
    learn(cpp, large._replace(qkv=large.qkv * 1e4, into=large.into * torch.inf))  # not numbers, everywhere
    assert all(torch.equal(a, b) for a, b in zip(before, learn(cpp, small), strict=True))


def test_any_memory_layout(dtype):
    case = draw(dtype, 8, 9, 5, 1, d=6)
    want = learn(cpp, case)
    heads_first = case._replace(qkv=case.qkv.permute(0, 4, 3, 1, 2, 5).contiguous().permute(0, 3, 4, 2, 1, 5))
    turned = case._replace(into=case.into.permute(0, 3, 2, 1, 4).contiguous().permute(0, 3, 2, 1, 4))
    for same in (heads_first, turned):
        assert all(torch.equal(a, b) for a, b in zip(want, learn(cpp, same), strict=True))


def test_expanded_gradients_are_read_by_stride(dtype):
    case = draw(dtype, 6, 7, 3, 1)
    spread = learn(cpp, case._replace(into=torch.ones((), dtype=dtype).expand_as(case.into)))
    whole = learn(cpp, case._replace(into=torch.ones_like(case.into)))
    assert all(torch.equal(a, b) for a, b in zip(spread, whole, strict=True))


@pytest.mark.parametrize("learns", range(4), ids=["queries", "keys", "values", "table"])
def test_only_trainable_inputs_get_gradients(learns):
    case = draw(torch.float32, 6, 7, 3, 1)
    operands = [*(x.contiguous() for x in case.qkv.unbind(3)), case.bias]
    for i, x in enumerate(operands):
        x.requires_grad_(i == learns)
    y = cpp(*operands, 3, 1)
    y.backward(case.into)
    want = learn(cpp, case)[1:]
    for i, x in enumerate(operands):
        assert torch.equal(x.grad, want[i]) if i == learns else x.grad is None


def test_a_table_in_bf16_gets_its_gradient_in_bf16():
    case = draw(torch.float32, 6, 7, 3, 1)
    case = case._replace(bias=case.bias.bfloat16())
    got = learn(cpp, case)[-1]
    assert got.dtype == torch.bfloat16 and furthest([got], learn(reference, case.exact())[-1:]) < CLOSE[torch.bfloat16]


def test_cancelling_gradients_are_zero():
    """Shares of a query sum to one, so its scores' gradients sum to zero, and so does the table's over all offsets."""
    case = draw(torch.float32, 11, 12, 5, 2)
    into_bias = learn(cpp, case)[-1]
    assert (into_bias.sum(0).abs() < 1e-5 * into_bias.abs().sum(0)).all()
    constant = case._replace(into=torch.ones_like(case.into))
    into_v = learn(cpp, constant)[3]  # each query hands out one in all
    torch.testing.assert_close(into_v.sum((1, 2)), torch.full((2, 2, 8), 11.0 * 12))


def test_a_mixer_trains_by_it_and_exports_and_transforms_by_others():
    mixer = NeighborhoodAttention(16, num_heads=2, kernel_size=3, dilation=2)
    x, grid = torch.randn(2, 7 * 6, 16), Grid(7, 6)
    q = torch.randn(2, 7, 6, 2, 8)
    asked = (q, q, q, mixer.position.table, 3, 2)
    assert dict(neighborhood.explain(*asked))["cpp"] is None
    assert "_AttendBackward" in type(neighborhood(*asked).grad_fn).__name__
    y = mixer(x, grid)
    program = torch.export.export(mixer, (x, grid))
    torch.testing.assert_close(program.module()(x, grid), y)
    assert not any("_Attend" in str(node.target) for node in program.graph.nodes)
    mixer.requires_grad_(False)
    pull = torch.func.grad(lambda rows: mixer(rows, grid).sum())(x)
    (want,) = torch.autograd.grad(mixer(x.requires_grad_(), grid).sum(), [x])
    torch.testing.assert_close(pull, want)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="builds for older x86 processors")
@pytest.mark.parametrize("machine", ["haswell", "x86-64"])
def test_older_processors_get_the_same_gradients(machine, monkeypatch, tmp_path):
    flags = [f"-march={machine}" if flag.startswith("-march") else flag for flag in native_build.FLAGS]
    monkeypatch.setattr(native_build, "FLAGS", tuple(flags))
    monkeypatch.setattr(native_build, "_FOUND", {})
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    meeting.cache_clear()  # strips are as wide as is best for a processor's vectors
    try:
        for size in [(5, 5, 5, 1), (14, 15, 7, 2), (20, 9, 7, 1)]:
            for d in (5, 32, 66):
                case = draw(torch.float32, *size, d=d)
                assert furthest(learn(cpp, case), learn(reference, case.exact())) < CLOSE[torch.float32]
    finally:
        meeting.cache_clear()


@pytest.mark.slow
def test_a_compiled_graph_trains_by_tiles_to_the_same_gradients():
    # In a process of its own, because the compiler does not see through the checks of shapes that the tests put on.
    code = """
import torch
from vitrail.grid import Grid
from vitrail.native import build as native_build
from vitrail.native.neighborhood import meeting
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention
mixer, x, grid = NeighborhoodAttention(16, num_heads=2, kernel_size=3), torch.randn(2, 42, 16), Grid(6, 7)
compiled = torch.compile(mixer, backend="aot_eager", fullgraph=True)
got, want = (torch.autograd.grad(run(x, grid).square().sum(), [*mixer.parameters()]) for run in (compiled, mixer))
for a, b in zip(got, want, strict=True):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
print("same")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "same\n", done.stderr
