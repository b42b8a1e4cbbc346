"""Non-local blocks against loops over pairs of cells."""

import pytest
import torch

from vitrail.grid import Grid
from vitrail.parts.non_local import (
    NonLocalAttention,
    NonLocalBlock,
    NonLocalBottleneck,
    NonLocalConcatenation,
    NonLocalDotProduct,
)

KINDS = [NonLocalAttention, NonLocalDotProduct, NonLocalConcatenation]


def loop(m: NonLocalAttention, x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Mix pair by pair."""
    cells, keys = x.view(len(x), grid.h, grid.w, -1), []
    for y in range(0, grid.h, 2):
        for u in range(0, grid.w, 2):
            keys.append(cells[:, y : y + 2, u : u + 2].flatten(1, 2).amax(1))
    rows = []
    for i in range(grid.tokens):
        query, scores = m.theta(x[:, i]), []
        for key in keys:
            score = (query * m.phi(key)).sum(-1)
            if isinstance(m, NonLocalConcatenation):
                w = torch.cat([m.attend.of_query.weight, m.attend.of_key.weight], dim=1)
                score = (torch.cat([query, m.phi(key)], dim=1) @ w[0]).relu()
            scores.append(score)
        scores = torch.stack(scores, -1)
        softmax = type(m) is NonLocalAttention
        weights = (scores / query.shape[-1] ** 0.5).softmax(-1) if softmax else scores / len(keys)
        rows.append(sum(w[:, None] * m.g(key) for w, key in zip(weights.unbind(-1), keys, strict=True)))
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 4)])
def test_mixing_against_a_loop(kind, size):
    m, grid = kind(6).double(), Grid(*size)
    x = torch.randn(2, grid.tokens, 6, dtype=torch.double, requires_grad=True)
    got, want, inputs = m(x, grid), loop(m, x, grid), [x, *m.parameters()]
    torch.testing.assert_close(got, want)
    weight = torch.randn_like(got)
    ours, loops = (torch.autograd.grad((y * weight).sum(), inputs, allow_unused=True) for y in (got, want))
    for a, b in zip(ours, loops, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_block_is_the_identity(kind):
    x = torch.randn(2, 12, 8)
    assert torch.equal(NonLocalBlock(8, kind(8))(x, Grid(3, 4)), x)


def test_a_far_cell_is_read():
    m, grid = NonLocalBottleneck(8, NonLocalAttention(8)).eval(), Grid(1, 12)
    torch.nn.init.ones_(m.non_local.norm.weight)
    x = torch.randn(1, 12, 8).requires_grad_()
    gradient = torch.autograd.grad(m(x, grid)[0, 0].square().sum(), x)[0]
    assert gradient.abs().amax(-1).gt(0).sum() > 4  # a 3 x 3 convolution alone reads two cells here
    assert m.token_mixer.coverage(Grid(3, 3)).sum(1).allclose(torch.ones(4))
