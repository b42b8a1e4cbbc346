"""Visual tokens against loops over tokens and cells, and their symmetries."""

import pytest
import torch

from vitrail.grid import Grid
from vitrail.parts.visual_tokens import (
    FilterTokenizer,
    KeepTokens,
    Projector,
    RecurrentTokenizer,
    TokenStep,
    VisualTransformerBlock,
)


def softmax(scores: list[torch.Tensor]) -> list[torch.Tensor]:
    total = sum(score.exp() for score in scores)
    return [score.exp() / total for score in scores]


def read(queries, keys, values, scale=1.0):
    """Attend query by query, from lists of vectors."""
    rows = []
    for query in queries:
        shares = softmax([(query * key).sum() * scale for key in keys])
        rows.append(sum(share * value for share, value in zip(shares, values, strict=True)))
    return rows


def dense(conv: torch.nn.Conv1d) -> torch.Tensor:
    """Return the block-diagonal matrix of a grouped convolution."""
    return torch.block_diag(*conv.weight[:, :, 0].chunk(conv.groups))


def loop(m: VisualTransformerBlock, x: torch.Tensor, grid: Grid) -> torch.Tensor:
    out, scale = [], (x.shape[-1] // 2) ** -0.5
    for tokens, cells in zip(x[:, : grid.prefix], x[:, grid.prefix :], strict=True):
        if isinstance(m.tokenizer, FilterTokenizer):
            filters = list(m.tokenizer.groups.weight)
        else:
            filters = [m.tokenizer.filters.weight @ token for token in tokens]
        t = read(filters, list(cells), list(cells))
        mixer, p = m.token_mixer, m.projector
        mixed = read([mixer.q.weight @ a for a in t], [mixer.k.weight @ a for a in t], t, scale)
        t = [a + b for a, b in zip(t, mixed, strict=True)]
        t = [a + m.fc2.weight @ (m.fc1.weight @ a).relu() for a in t]
        added = read([dense(p.q) @ c for c in cells], [dense(p.k) @ a for a in t], t, x.shape[-1] ** -0.5)
        out.append(torch.stack([*t, *(c + a for c, a in zip(cells, added, strict=True))]))
    return torch.stack(out)


@pytest.mark.parametrize("tokenizer", [FilterTokenizer(6, 3), RecurrentTokenizer(6)])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 2)])
def test_block_against_a_loop(tokenizer, size):
    m, grid = VisualTransformerBlock(6, tokenizer, Projector(6, groups=3)).double(), Grid(*size, prefix=3)
    x = torch.randn(2, grid.tokens, 6, dtype=torch.double, requires_grad=True)
    got, want, inputs = m(x, grid), loop(m, x, grid), [x, *m.parameters()]
    torch.testing.assert_close(got, want)
    weight = torch.randn_like(got)
    ours, loops = (torch.autograd.grad((y * weight).sum(), inputs) for y in (got, want))
    for a, b in zip(ours, loops, strict=True):
        torch.testing.assert_close(a, b)


def test_tokens_do_not_depend_on_the_order_of_cells():
    step, block = TokenStep(FilterTokenizer(8, 4)), VisualTransformerBlock(8, KeepTokens(), Projector(8, groups=2))
    x, order = torch.randn(2, 12, 8), torch.randperm(12)
    (a, grid), (b, _) = step(x, Grid(3, 4)), step(x[:, order], Grid(3, 4))
    assert grid == Grid(3, 4, prefix=4)
    a, b = block(a, grid), block(b, grid)
    torch.testing.assert_close(a[:, :4], b[:, :4])
    torch.testing.assert_close(a[:, 4:][:, order], b[:, 4:])


def test_one_cell_is_every_token():
    x = torch.randn(2, 1, 8)
    torch.testing.assert_close(RecurrentTokenizer(8)(x, torch.randn(2, 3, 8)), x.expand(-1, 3, -1))
