"""Causal and cross-attention: loops, caches, padding."""

import itertools

import pytest
import torch
from torch import nn

from vitrail.errors import VitrailError
from vitrail.kernels.attention.causal import attend_causally, causal_attention
from vitrail.layouts import TokenSequence
from vitrail.parts.causal_attend import CausalAttend, DropoutAttend
from vitrail.parts.key_value_cache import KeyValueCache
from vitrail.parts.sequence_positions import ALiBi, RotaryPosition
from vitrail.parts.token_mixers.causal_attention import CausalAttention
from vitrail.parts.token_mixers.cross_attention import CrossAttention


def by_loops(q, k, v):
    """Compute causal attention of single heads `(N, d)`, query by query."""
    out = torch.empty(len(q), v.shape[1], dtype=v.dtype)
    for i in range(len(q)):
        seen = i + len(k) - len(q) + 1
        weights = [torch.exp(q[i] @ k[j] / q.shape[1] ** 0.5) for j in range(seen)]
        out[i] = sum(w * v[j] for j, w in enumerate(weights)) / sum(weights)
    return out


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 7), (3, 3), (3, 8), (7, 7)])
def test_each_query_attends_to_keys_up_to_its_own(n, m):
    q, k, v = torch.randn(n, 4).double(), torch.randn(m, 4).double(), torch.randn(m, 5).double()
    want = by_loops(q, k, v)
    for got in (CausalAttend()(q[None], k[None], v[None]), causal_attention(q[None], k[None], v[None])):
        torch.testing.assert_close(got[0], want)
    torch.testing.assert_close(attend_causally(q[None], k[None], v[None])[0], want)
    torch.testing.assert_close(CausalAttend().maps(q[None], k[None], None)[0] @ v, want)


def test_gradients_of_the_fused_kernel_are_those_of_the_specification():
    operands = [torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    got = torch.autograd.grad(causal_attention(*operands).square().sum(), operands)
    want = torch.autograd.grad(attend_causally(*operands).square().sum(), operands)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("position", [None, RotaryPosition(4), ALiBi(3)], ids=["none", "rotary", "alibi"])
@pytest.mark.parametrize("pieces", [(1,) * 6, (4, 1, 1), (2, 3, 1)])
def test_steps_with_a_cache_equal_the_whole(position, pieces):
    mixer, x, cache = CausalAttention(12, 3, position=position), torch.randn(2, 6, 12), KeyValueCache(9)
    start, out = 0, []
    for n in pieces:
        out.append(mixer(x[:, start : start + n], TokenSequence(n, start=start, cache=cache)))
        start += n
    torch.testing.assert_close(torch.cat(out, 1), mixer(x, TokenSequence(6)), rtol=1e-5, atol=1e-6)


def test_a_cache_selects_rows_and_refuses_other_shapes():
    mixer, x, cache = CausalAttention(8, 2), torch.randn(3, 4, 8), KeyValueCache(4)
    mixer(x[:, :3], TokenSequence(3, cache=cache))
    cache.select(torch.tensor([2, 0, 2]))
    got = mixer(x[[2, 0, 2], 3:], TokenSequence(1, start=3, cache=cache))
    torch.testing.assert_close(got, mixer(x, TokenSequence(4))[[2, 0, 2], 3:], rtol=1e-5, atol=1e-6)
    with pytest.raises(VitrailError, match="room for 4 tokens, and token 5"):
        mixer(x[:, :1], TokenSequence(1, start=4, cache=cache))


def test_padding_does_not_change_the_output_in_any_batch():
    causal, cross = CausalAttention(8, 2), CrossAttention(8, 2)
    texts, memories = ([torch.randn(1, n, 8) for n in (5, 1, 3)] for _ in range(2))
    alone = [
        cross(causal(x, TokenSequence(x.shape[1])), TokenSequence(x.shape[1], memory=m))
        for x, m in zip(texts, memories, strict=True)
    ]
    for chosen in itertools.permutations(range(3), 2):
        lengths = torch.tensor([texts[i].shape[1] for i in chosen])
        x, memory = (
            torch.cat([nn.functional.pad(t[i], (0, 0, 0, 6 - t[i].shape[1]), value=7.0) for i in chosen])
            for t in (texts, memories)
        )
        layout = TokenSequence(6, lengths=lengths, memory=memory, memory_lengths=lengths)
        got = cross(causal(x, layout), layout)
        for row, i in enumerate(chosen):
            torch.testing.assert_close(got[row : row + 1, : lengths[row]], alone[i], rtol=1e-5, atol=1e-6)


def test_cross_attention_equals_pytorchs():
    ours, theirs = CrossAttention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.kv.weight]))
        assert theirs.in_proj_bias is not None
        theirs.in_proj_bias.copy_(torch.cat([ours.q.bias, ours.kv.bias]))
    theirs.out_proj.load_state_dict(ours.proj.state_dict())
    x, memory, lengths = torch.randn(2, 4, 12), torch.randn(2, 5, 12), torch.tensor([5, 2])
    padded = torch.arange(5) >= lengths[:, None]
    got = ours(x, TokenSequence(4, memory=memory, memory_lengths=lengths))
    torch.testing.assert_close(got, theirs(x, memory, memory, key_padding_mask=padded)[0], rtol=1e-5, atol=1e-6)


def test_dropout_acts_in_training_alone_and_keeps_the_mean():
    attend, q = DropoutAttend(0.5), torch.randn(1, 2, 3, 4)
    v = torch.ones(1, 2, 3, 1).expand(1, 2, 3, 2000)
    torch.testing.assert_close(attend.eval()(q, q, v), torch.ones(1, 2, 3, 2000))
    drawn = torch.stack([attend.train()(q, q, v)[..., 0] for _ in range(4000)])
    assert drawn.std() > 0.1 and (drawn.mean(0) - 1).abs().max() < 0.1
    with pytest.raises(VitrailError, match="dropout rate must be at least 0 and below 1, got 1"):
        DropoutAttend(1.0)
