"""Retention: its three forms agree after the norm, and equal a loop over pairs of tokens."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.parts.token_mixers.retention import ChunkwiseRetention, RecurrentRetention, Retention


def loop(m: Retention, x: torch.Tensor) -> torch.Tensor:
    """Retain pair by pair with complex rotations."""
    b, n, c = x.shape
    h, d = m.num_heads, c // m.num_heads
    q, k, v = (m.q(x).view(b, n, h, d), m.k(x).view(b, n, h, d) / d**0.5, m.v(x).view(b, n, h, -1))
    angles = [1e4 ** (-i / (d // 2 - 1)) for i in range(d // 2)]
    rows = []
    for i in range(n):
        heads = []
        for head in range(h):
            out = torch.zeros_like(v[:, 0, 0])
            for j in range(i + 1):
                score = 0.0
                for p, angle in enumerate(angles):  # Re of (q e^{i n a}) conj(k e^{i m a})
                    (qr, qi), (kr, ki) = (y[:, t, head, 2 * p : 2 * p + 2].unbind(-1) for y, t in ((q, i), (k, j)))
                    cos, sin = math.cos((i - j) * angle), math.sin((i - j) * angle)
                    score = score + (qr * kr + qi * ki) * cos + (qr * ki - qi * kr) * sin
                out = out + (1 - 2.0 ** (-5 - head)) ** (i - j) * score[:, None] * v[:, j, head]
            heads.append(out / (out.square().mean(-1, keepdim=True) + m.eps).sqrt())
        rows.append(torch.cat(heads, dim=-1))
    mixed = torch.stack(rows, dim=1)
    return m.proj(torch.nn.functional.silu(m.gate(x)) * mixed)


def sharp(dim: int, **options) -> Retention:
    """Make a retention with weights that are not small, and a norm without eps to speak of."""
    m = Retention(dim, num_heads=2, eps=1e-12, **options).double()
    for p in m.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return m


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 4), (5, 5)])
@pytest.mark.parametrize("retain", [None, RecurrentRetention(), ChunkwiseRetention(4), ChunkwiseRetention(1)])
def test_every_form_equals_the_loop(size, retain):
    m, grid = sharp(8, retain=retain), Grid(*size)
    x = torch.randn(2, grid.tokens, 8, dtype=torch.double)
    torch.testing.assert_close(m(x, grid), loop(m, x), rtol=1e-5, atol=1e-6)  # decays are fp32


@pytest.mark.parametrize("retain", [RecurrentRetention(), ChunkwiseRetention(3)])
def test_gradients_of_the_forms_agree(retain):
    m, other, grid = sharp(8), sharp(8, retain=retain), Grid(2, 5)
    other.load_state_dict(m.state_dict())
    x = torch.randn(1, 10, 8, dtype=torch.double, requires_grad=True)
    weight = torch.randn(1, 10, 8, dtype=torch.double)
    ours, theirs = (torch.autograd.grad((f(x, grid) * weight).sum(), [x, *f.parameters()]) for f in (m, other))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_gradient_of_the_recurrent_form():
    m = Retention(4, num_heads=1, retain=RecurrentRetention()).double()
    x = torch.randn(1, 5, 4, dtype=torch.double, requires_grad=True)
    assert gradcheck(lambda x, *_: m(x, Grid(1, 5)), (x, *m.parameters()), eps=1e-6, atol=1e-4)


def test_no_token_reads_a_later_one():
    m, x = sharp(8), torch.randn(1, 6, 8, dtype=torch.double)
    changed = x.clone()
    changed[:, 4:] = 0
    torch.testing.assert_close(m(changed, Grid(2, 3))[:, :4], m(x, Grid(2, 3))[:, :4])


def test_heads_that_leave_no_pairs():
    with pytest.raises(VitrailError, match="3 heads cannot share"):
        Retention(12 + 2, num_heads=3)
