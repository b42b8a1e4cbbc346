"""Attention with mixed heads and class attention, against loops and against plain attention."""

import pytest
import torch
from torch import nn

from vitrail.grid import Grid
from vitrail.parts.attend import Attend
from vitrail.parts.blocks import Block, PrefixBlock
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.head_mixing import HeadLinear, HeadMixingAttend
from vitrail.parts.token_mixers.class_attention import ClassAttention
from vitrail.parts.token_mixers.self_attention import SelfAttention


def re_attention(heads: int) -> HeadMixingAttend:
    """Build DeepViT's leaf with random statistics."""
    norm = nn.BatchNorm2d(heads)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    return HeadMixingAttend(after=nn.Sequential(HeadLinear(heads), norm)).eval()


def by_loops(attend: HeadMixingAttend, q, k, v, bias):
    """Compute attention of one image query by query, with heads mixed by sums over heads."""
    heads, n, d = q.shape

    def mixed(layer, maps):
        rows = [sum(layer.weight[g, h] * maps[h] for h in range(heads)) + layer.bias[g] for g in range(heads)]
        return torch.stack(rows)

    scores = torch.stack(
        [torch.stack([(q[h] @ k[h, m]) / d**0.5 for m in range(k.shape[1])], -1) for h in range(heads)]
    )
    if isinstance(attend.before, HeadLinear):
        scores = mixed(attend.before, scores)
    scores = scores + bias
    maps = scores.exp() / scores.exp().sum(-1, keepdim=True)
    layer = attend.after[0] if isinstance(attend.after, nn.Sequential) else attend.after
    maps = mixed(layer, maps)
    if isinstance(attend.after, nn.Sequential):
        norm = attend.after[1]
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        maps = (maps - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
    return torch.stack([torch.stack([sum(maps[h, i, m] * v[h, m] for m in range(k.shape[1])) for i in range(n)])
                        for h in range(heads)]), maps  # fmt: skip


LEAVES = {"re-attention": re_attention, "talking heads": lambda h: HeadMixingAttend(HeadLinear(h), HeadLinear(h))}


@pytest.mark.parametrize("kind", LEAVES)
@pytest.mark.parametrize(("heads", "tokens"), [(1, 1), (2, 7), (3, 5)])
def test_head_by_head_with_gradients(kind, heads, tokens):
    attend = LEAVES[kind](heads).double()
    q, k, v = (torch.randn(heads, tokens, 4, dtype=torch.double, requires_grad=True) for _ in range(3))
    bias = torch.randn(heads, tokens, tokens, dtype=torch.double)
    got, (want, maps) = attend(q[None], k[None], v[None], bias)[0], by_loops(attend, q, k, v, bias)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(attend.maps(q[None], k[None], bias)[0], maps)
    inputs, seed = (q, k, v, *attend.parameters()), torch.randn_like(got)
    for a, b in zip(torch.autograd.grad(got, inputs, seed), torch.autograd.grad(want, inputs, seed), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("tokens", [1, 7, 49])
def test_with_the_identity_it_is_attention(tokens):
    q, k, v = (torch.randn(2, 3, tokens, 8) for _ in range(3))
    bias, mixing = torch.randn(tokens, tokens), HeadLinear(3)
    nn.init.eye_(mixing.weight), nn.init.zeros_(mixing.bias)
    want = Attend()(q, k, v, bias)
    for attend in (HeadMixingAttend(), HeadMixingAttend(mixing, mixing)):
        torch.testing.assert_close(attend(q, k, v, bias), want)
    norm = nn.BatchNorm2d(3, eps=0.0)
    torch.testing.assert_close(HeadMixingAttend(after=nn.Sequential(mixing, norm)).eval()(q, k, v, bias), want)


def test_rows_of_re_attention_need_not_sum_to_one():
    maps = re_attention(3).maps(torch.randn(1, 3, 5, 4), torch.randn(1, 3, 5, 4), None)
    assert (maps.sum(-1) - 1).abs().max() > 0.1


def test_a_hidden_key_is_hidden_from_every_head():
    attend, v = HeadMixingAttend(before=HeadLinear(3)), torch.randn(1, 3, 4, 2)
    q, k, bias = torch.randn(1, 3, 4, 2), torch.randn(1, 3, 4, 2), torch.tensor([0, 0, 0, -torch.inf])
    changed = v + torch.tensor([0.0, 0, 0, 5])[:, None]
    assert torch.equal(attend(q, k, v, bias), attend(q, k, changed, bias))


def test_maps_in_training_leave_running_statistics_alone():
    attend = re_attention(3).train()
    before = attend.after[1].running_mean.clone()
    attend.maps(torch.randn(1, 3, 5, 4), torch.randn(1, 3, 5, 4), None)
    assert torch.equal(attend.after[1].running_mean, before)


@pytest.mark.parametrize("grid", [Grid(1, 1, prefix=1), Grid(1, 7, prefix=2), Grid(3, 5, prefix=1)])
def test_class_attention_query_by_query(grid):
    mixer = ClassAttention(6, num_heads=2).double()
    x = torch.randn(2, grid.tokens, 6, dtype=torch.double, requires_grad=True)
    got, want = mixer(x, grid), torch.zeros(2, grid.tokens, 6, dtype=torch.double)
    k, v = mixer.kv(x).chunk(2, dim=-1)
    for b in range(2):
        for n in range(grid.prefix):
            q, heads = mixer.q(x[b, n]), []
            for h in (slice(0, 3), slice(3, 6)):
                weights = torch.stack([(q[h] @ k[b, m, h]) / 3**0.5 for m in range(grid.tokens)]).softmax(0)
                heads.append(sum(weights[m] * v[b, m, h] for m in range(grid.tokens)))
            want[b, n] = mixer.proj(torch.cat(heads))
    torch.testing.assert_close(got, want)
    seed, inputs = torch.randn_like(got), (x, *mixer.parameters())
    for a, b in zip(torch.autograd.grad(got, inputs, seed), torch.autograd.grad(want, inputs, seed), strict=True):
        torch.testing.assert_close(a, b)


def test_class_attention_is_the_prefix_of_self_attention():
    mixer, whole, grid = ClassAttention(6, 2), SelfAttention(6, 2), Grid(2, 3, prefix=1)
    with torch.no_grad():
        whole.qkv.weight.copy_(torch.cat([mixer.q.weight, mixer.kv.weight]))
        whole.qkv.bias.copy_(torch.cat([mixer.q.bias, mixer.kv.bias]))
    whole.proj = mixer.proj
    x = torch.randn(2, 7, 6)
    torch.testing.assert_close(mixer(x, grid)[:, :1], whole(x, grid)[:, :1])


def test_a_prefix_block_moves_the_prefix_alone():
    parts = (nn.LayerNorm(6), SelfAttention(6, 2), nn.LayerNorm(6), MLP(6, 12))
    x, grid = torch.randn(2, 7, 6), Grid(2, 3, prefix=1)
    got, want = PrefixBlock(*parts)(x, grid), Block(*parts)(x, grid)
    torch.testing.assert_close(got[:, :1], want[:, :1])
    assert torch.equal(got[:, 1:], x[:, 1:])
