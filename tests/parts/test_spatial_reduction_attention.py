"""Attention over a reduced map against a loop over queries and squares, and the coverage of each key."""

import pytest
import torch

from vitrail.grid import Grid
from vitrail.parts.depthwise_mlp import DepthwiseMLP
from vitrail.parts.spatial_reduction import ConvReduction, NoReduction, PooledReduction
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.spatial_reduction_attention import SpatialReductionAttention

GRIDS = [(1, 1), (1, 7), (3, 5), (4, 4), (11, 2)]
every_grid = pytest.mark.parametrize("size", GRIDS)


def mixer_of(reduction: NoReduction) -> SpatialReductionAttention:
    mixer = SpatialReductionAttention(4, 2, reduction).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter)
    return mixer


def squares(n: int, ratio: int) -> list[range]:
    """Return the places of each square on one axis; those from `n` on are zeros."""
    return [range(i * ratio, (i + 1) * ratio) for i in range(max(n // ratio, 1))]


def reduced_by_convolution(reduction: ConvReduction, x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Reduce one image `(N, C)` square by square, filter by filter."""
    keys = []
    for rows in squares(grid.h, reduction.ratio):
        for columns in squares(grid.w, reduction.ratio):
            key = reduction.conv.bias
            for i, y in enumerate(rows):
                for j, x_ in enumerate(columns):
                    if y < grid.h and x_ < grid.w:
                        key = key + reduction.conv.weight[:, :, i, j] @ x[y * grid.w + x_]
            keys.append(reduction.norm(key))
    return torch.stack(keys)


def reduced_by_pooling(reduction: PooledReduction, x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Reduce one image `(N, C)` to p x p means of cells that overlap."""
    keys, p, cells = [], reduction.size, x.unflatten(0, (grid.h, grid.w))
    for i in range(p):
        for j in range(p):
            rows, columns = (range(k * n // p, -(-(k + 1) * n // p)) for k, n in ((i, grid.h), (j, grid.w)))
            mean = torch.stack([cells[y, x_] for y in rows for x_ in columns]).mean(0)
            keys.append(reduction.act(reduction.norm(reduction.conv.weight[:, :, 0, 0] @ mean + reduction.conv.bias)))
    return torch.stack(keys)


def twin(mixer: SpatialReductionAttention, x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Attend for one image `(N, C)`, query by query and head by head."""
    reduction = mixer.reduction
    if isinstance(reduction, ConvReduction):
        reduced = reduced_by_convolution(reduction, x, grid)
    elif isinstance(reduction, PooledReduction):
        reduced = reduced_by_pooling(reduction, x, grid)
    else:
        reduced = x
    out, d = [], x.shape[1] // mixer.num_heads
    for token in x:
        mixed = []
        for h in range(mixer.num_heads):
            q = mixer.q(token)[h * d : (h + 1) * d]
            k = mixer.kv(reduced)[:, h * d : (h + 1) * d]
            v = mixer.kv(reduced)[:, x.shape[1] + h * d : x.shape[1] + (h + 1) * d]
            mixed.append((k @ q / d**0.5).softmax(0) @ v)
        out.append(mixer.proj(torch.cat(mixed)))
    return torch.stack(out)


@every_grid
@pytest.mark.parametrize("reduction", ["none", "conv 2", "conv 3", "pooled"])
def test_against_the_twin(size, reduction):
    kinds = {"none": NoReduction(), "conv 2": ConvReduction(4, 2), "conv 3": ConvReduction(4, 3)}
    grid, mixer = Grid(*size), mixer_of(kinds.get(reduction) or PooledReduction(4, size=3))
    x = torch.randn(2, grid.tokens, 4, dtype=torch.double, requires_grad=True)
    got = mixer(x, grid)
    want = torch.stack([twin(mixer, one, grid) for one in x])
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    weights, learned = torch.randn_like(got), [x, *mixer.parameters()]
    gradients = [torch.autograd.grad((y * weights).sum(), learned, retain_graph=True) for y in (got, want)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


def test_without_reduction_it_is_self_attention_with_prefix_tokens_too():
    grid, mixer, same = Grid(3, 5, prefix=1), mixer_of(NoReduction()), SelfAttention(4, 2).double()
    same.qkv.weight.data = torch.cat([mixer.q.weight, mixer.kv.weight])
    same.qkv.bias.data = torch.cat([mixer.q.bias, mixer.kv.bias])
    same.proj.load_state_dict(mixer.proj.state_dict())
    x = torch.randn(2, grid.tokens, 4, dtype=torch.double)
    torch.testing.assert_close(mixer(x, grid), same(x, grid))


@every_grid
@pytest.mark.parametrize("reduction", [ConvReduction(4, 2), ConvReduction(4, 3), PooledReduction(4)], ids=str)
def test_coverage_is_which_cells_move_which_key(size, reduction):
    grid = Grid(*size)
    coverage = reduction.coverage(grid)
    torch.testing.assert_close(coverage.sum(1), torch.ones(len(coverage)))
    x = torch.randn(1, grid.tokens, 4)
    keys = reduction(x, grid)
    assert len(coverage) == keys.shape[1]
    for cell in range(grid.tokens):
        other = x.clone()
        other[0, cell] += 1
        moved = ((reduction(other, grid) - keys).abs().amax(-1) > 1e-6)[0]
        assert torch.equal(moved, coverage[:, cell] > 0)


def test_the_mean_over_a_square_is_pooling():
    reduction, x = ConvReduction(4, 2), torch.randn(1, 24, 4)
    with torch.no_grad():
        reduction.conv.weight.copy_(torch.eye(4)[:, :, None, None].expand(4, 4, 2, 2) / 4)
        reduction.conv.bias.zero_()
    torch.testing.assert_close(reduction(x, Grid(4, 6)), reduction.norm(reduction.coverage(Grid(4, 6)) @ x))


@every_grid
def test_depthwise_mlp_against_a_loop(size):
    grid, mixer = Grid(*size), DepthwiseMLP(3, 5, before=torch.nn.ReLU())
    x = torch.randn(1, grid.tokens, 3)
    hidden = mixer.fc1(x)[0].relu().unflatten(0, size)
    want = torch.zeros_like(hidden)
    for y in range(grid.h):
        for x_ in range(grid.w):
            want[y, x_] = mixer.conv.bias
            for i, j in ((i, j) for i in range(3) for j in range(3)):
                if 0 <= y + i - 1 < grid.h and 0 <= x_ + j - 1 < grid.w:
                    want[y, x_] += mixer.conv.weight[:, 0, i, j] * hidden[y + i - 1, x_ + j - 1]
    want = mixer.fc2(torch.nn.functional.gelu(want))
    torch.testing.assert_close(mixer(x, grid)[0], want.flatten(0, 1), rtol=1e-4, atol=1e-5)
