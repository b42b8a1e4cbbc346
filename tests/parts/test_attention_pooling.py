"""Pooling by attention, image by image."""

import pytest
import torch

from vitrail.grid import Grid
from vitrail.parts.attention_pooling import AttentionPooling
from vitrail.parts.backbone import Features
from vitrail.parts.channel_mixers import MLP


@pytest.mark.parametrize("tokens", [1, 7, 15])
def test_image_by_image_with_gradients(tokens):
    pool = AttentionPooling(6, 2, MLP(6, 12)).double()
    x = torch.randn(2, tokens, 6, dtype=torch.double, requires_grad=True)
    grid, want = Grid(1, tokens), []
    got = pool(Features(x, grid, ()))
    q = pool.q(pool.latent[0, 0])
    for b in range(2):
        k, v = pool.kv(x[b]).chunk(2, dim=-1)
        heads = []
        for h in (slice(0, 3), slice(3, 6)):
            weights = torch.stack([(q[h] @ k[m, h]) / 3**0.5 for m in range(tokens)]).softmax(0)
            heads.append(sum(weights[m] * v[m, h] for m in range(tokens)))
        pooled = pool.proj(torch.cat(heads))
        want.append(pooled + pool.mlp(pool.mlp_norm(pooled)[None, None], grid)[0, 0])
    torch.testing.assert_close(got, torch.stack(want))
    inputs, seed = (x, *pool.parameters()), torch.randn_like(got)
    expected = torch.autograd.grad(torch.stack(want), inputs, seed)
    for a, b in zip(torch.autograd.grad(got, inputs, seed), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_the_order_of_tokens_does_not_matter():
    pool, x, order = AttentionPooling(6, 2, MLP(6, 12)), torch.randn(2, 6, 6), torch.randperm(6)
    torch.testing.assert_close(pool(Features(x[:, order], Grid(2, 3), ())), pool(Features(x, Grid(2, 3), ())))
