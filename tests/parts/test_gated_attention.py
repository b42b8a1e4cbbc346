"""Gated positional self-attention against loops, and the convolution that it begins as."""

import pytest
import torch

from vitrail.grid import Grid
from vitrail.models.convit import begin_as_convolution
from vitrail.parts.attend import Attend
from vitrail.parts.gated_attention import GatedAttend, RelativeOffsetScores
from vitrail.parts.token_mixers.self_attention import SelfAttention


def gpsa(dim: int, heads: int) -> SelfAttention:
    """Build gated positional self-attention with random gates."""
    mixer = SelfAttention(dim, heads, position=RelativeOffsetScores(heads), attend=GatedAttend(heads))
    torch.nn.init.normal_(mixer.attend.gate)
    return mixer


@pytest.mark.parametrize("grid", [Grid(1, 1), Grid(1, 7), Grid(3, 5)])
def test_query_by_query_with_gradients(grid):
    mixer = gpsa(6, 2).double()
    x = torch.randn(2, grid.tokens, 6, dtype=torch.double, requires_grad=True)
    got, want = mixer(x, grid), []
    place, gate = mixer.position, mixer.attend.gate.sigmoid()
    for b in range(2):
        q, k, v = mixer.qkv(x[b]).view(grid.tokens, 3, 2, 3).unbind(1)
        for n in range(grid.tokens):
            heads = []
            for h in range(2):
                places = []
                for m in range(grid.tokens):
                    dy, dx = m // grid.w - n // grid.w, m % grid.w - n % grid.w
                    w = place.slope[h]
                    places.append(w[0] * dx + w[1] * dy + w[2] * (dx**2 + dy**2) + place.level[h])
                content = torch.stack([(q[n, h] @ k[m, h]) / 3**0.5 for m in range(grid.tokens)]).softmax(0)
                weights = (1 - gate[h]) * content + gate[h] * torch.stack(places).softmax(0)
                heads.append(sum(weights[m] * v[m, h] for m in range(grid.tokens)))
            want.append(mixer.proj(torch.cat(heads)))
    want = torch.stack(want).view_as(got)
    torch.testing.assert_close(got, want)
    inputs, seed = (x, *mixer.parameters()), torch.randn_like(got)
    for a, b in zip(torch.autograd.grad(got, inputs, seed), torch.autograd.grad(want, inputs, seed), strict=True):
        torch.testing.assert_close(a, b)


def test_with_closed_gates_it_is_attention_without_positions():
    q, k, v = (torch.randn(2, 3, 7, 4) for _ in range(3))
    attend, scores = GatedAttend(3), torch.randn(3, 7, 7)
    torch.nn.init.constant_(attend.gate, -50)
    torch.testing.assert_close(attend(q, k, v, scores), Attend()(q, k, v))


def test_rows_sum_to_one():
    maps = GatedAttend(3).maps(torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 4), torch.randn(3, 7, 7))
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 3, 7))


def test_a_square_number_of_heads_starts_as_a_convolution():
    mixer, grid = gpsa(18, 9), Grid(5, 5)
    begin_as_convolution(mixer, locality=5.0)
    maps = mixer.position.bias(torch.zeros(1, 9, 25, 2), grid).softmax(-1)
    centre = 12  # row 2, column 2
    looks_at = [divmod(maps[h, centre].argmax().item(), 5) for h in range(9)]
    assert looks_at == [(2 + h % 3 - 1, 2 + h // 3 - 1) for h in range(9)]
    assert maps[:, centre].amax(-1).min() > 0.9
    torch.testing.assert_close(mixer.qkv.weight[36:], torch.eye(18))
