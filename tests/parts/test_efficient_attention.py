"""Efficient attentions against loops over tokens, and where they equal full attention."""

import itertools

import pytest
import torch
from torch import nn

from vitrail.errors import VitrailError
from vitrail.kernels.attention.reference import attend
from vitrail.layouts import TokenSequence
from vitrail.parts.attend import merge_heads, split_heads
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.reversible import ReversibleBlock, ReversibleStack
from vitrail.parts.token_mixers.causal_attention import CausalAttention
from vitrail.parts.token_mixers.linformer import LinformerAttention
from vitrail.parts.token_mixers.lsh_attention import LSHAttention
from vitrail.parts.token_mixers.mixed_attention import MixedAttention
from vitrail.parts.token_mixers.performer import PerformerAttention, orthogonal_features
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.sparse_attention import FixedSparseAttention
from vitrail.parts.token_mixers.star_attention import StarTransformer

MIXERS = {
    "linformer": lambda: LinformerAttention(12, 3, max_length=20, rank=5),
    "performer": lambda: PerformerAttention(12, 3, features=8),
    "sparse": lambda: FixedSparseAttention(12, 3, block=4, summary=2),
    "star": lambda: StarTransformer(12, 3, depth=2),
    "lsh": lambda: LSHAttention(12, 3, buckets=4, rounds=2, chunk=20),
    "mixed": lambda: MixedAttention(12, 6, kernel_size=3),
}
every_mixer = pytest.mark.parametrize("name", MIXERS)


@every_mixer
def test_padding_does_not_change_the_output_in_any_batch(name):
    mixer, texts = MIXERS[name](), [torch.randn(1, n, 12) for n in (9, 1, 5)]
    alone = [mixer(x, TokenSequence(x.shape[1])) for x in texts]
    for chosen in itertools.permutations(range(3), 2):
        lengths = torch.tensor([texts[i].shape[1] for i in chosen])
        x = torch.cat([nn.functional.pad(texts[i], (0, 0, 0, 11 - texts[i].shape[1]), value=3.0) for i in chosen])
        got = mixer(x, TokenSequence(11, lengths=lengths))
        for row, i in enumerate(chosen):
            torch.testing.assert_close(got[row : row + 1, : lengths[row]], alone[i], rtol=1e-5, atol=1e-5)


@every_mixer
def test_every_weight_learns(name):
    mixer = MIXERS[name]()
    mixer(torch.randn(2, 20, 12), TokenSequence(20)).sin().sum().backward()
    assert [key for key, p in mixer.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def full(mixer, x, mask=None):
    """Return full attention with the projections of a mixer."""
    q, k, v = split_heads(mixer.qkv(x), mixer.num_heads)
    return mixer.proj(merge_heads(attend(q, k, v, mask)))


def test_linformer_is_full_attention_with_identity_projections_and_low_rank_otherwise():
    mixer, x = LinformerAttention(12, 3, max_length=7, rank=7), torch.randn(2, 7, 12)
    q, k, v = split_heads(mixer.qkv(x), 3)
    want = mixer.proj(merge_heads(attend(q, mixer.project_k @ k, mixer.project_v @ v, None)))
    torch.testing.assert_close(mixer(x, TokenSequence(7)), want)
    with torch.no_grad():
        mixer.project_k.copy_(torch.eye(7))
        mixer.project_v.copy_(torch.eye(7))
    torch.testing.assert_close(mixer(x, TokenSequence(7)), full(mixer, x), rtol=1e-5, atol=1e-6)
    with pytest.raises(VitrailError, match="8 tokens, and Linformer's projections have 7"):
        mixer(torch.randn(1, 8, 12), TokenSequence(8))


def test_performer_is_a_loop_over_pairs_and_converges_to_full_attention():
    mixer, x = PerformerAttention(8, 2, features=64), torch.randn(1, 5, 8)
    q, k, v = split_heads(mixer.qkv(x), 2)
    want = torch.zeros(1, 2, 5, 4)
    for head, i in itertools.product(range(2), range(5)):
        weights = []
        for j in range(5):
            a, b = q[0, head, i] / 4**0.25, k[0, head, j] / 4**0.25
            features = (mixer.features @ (a + b) - (a @ a + b @ b) / 2).exp()
            weights.append(features.mean())
        want[0, head, i] = sum(w * v[0, head, j] for j, w in enumerate(weights)) / sum(weights)
    torch.testing.assert_close(mixer(x, TokenSequence(5)), mixer.proj(merge_heads(want)), rtol=1e-3, atol=1e-4)
    errors = []
    for count in (16, 256, 4096):
        found = []
        for _ in range(20):
            mixer.features = orthogonal_features(count, 4)
            found.append((mixer(x, TokenSequence(5)) - full(mixer, x)).norm().item())
        errors.append(sum(found) / 20)
    assert errors[0] > errors[1] > 2 * errors[2] and errors[2] < 0.1 * full(mixer, x).norm()


def test_features_are_orthogonal_in_blocks_and_as_long_as_gaussians():
    rows = orthogonal_features(4000, 8)
    block = rows[:8] / rows[:8].norm(dim=1, keepdim=True)
    torch.testing.assert_close(block @ block.T, torch.eye(8), atol=1e-5, rtol=0)
    assert rows.square().sum(1).mean().item() == pytest.approx(8, rel=0.05)


@pytest.mark.parametrize("n", [1, 3, 4, 13, 16])
def test_the_sparse_pattern_is_full_attention_with_a_mask(n):
    mixer, x = FixedSparseAttention(12, 3, block=4, summary=2), torch.randn(2, n, 12)
    mask = torch.full((n, n), -torch.inf)
    for i in range(n):
        for j in range(i + 1):
            if j // 4 == i // 4 or j % 4 >= 2:
                mask[i, j] = 0.0
    torch.testing.assert_close(mixer(x, TokenSequence(n)), full(mixer, x, mask), rtol=1e-5, atol=1e-6)


def test_one_long_block_is_causal_attention():
    mixer, causal, x = FixedSparseAttention(12, 3, block=9), CausalAttention(12, 3), torch.randn(2, 9, 12)
    causal.load_state_dict(mixer.state_dict())
    torch.testing.assert_close(mixer(x, TokenSequence(9)), causal(x, TokenSequence(9)), rtol=1e-5, atol=1e-6)


def test_star_transformer_is_a_loop_over_tokens():
    mixer, x = StarTransformer(8, 2, depth=3), torch.randn(1, 5, 8)
    h, e, s = list(x[0]), list(x[0]), x[0].mean(0)

    def attention(part, query, keys):
        memory = torch.stack(keys)[None]
        return part(query[None, None], TokenSequence(1, memory=memory))[0, 0]

    for round, (ring, norm) in enumerate(zip(mixer.ring, mixer.norms, strict=True)):
        new = []
        for i in range(5):
            keys = [h[j] for j in (i - 1, i, i + 1) if 0 <= j < 5]
            new.append(norm(attention(ring, h[i], [*keys, e[i], s]).relu()))
        h = new
        if round < len(mixer.relay):
            s = mixer.relay_norms[round](attention(mixer.relay[round], s, [s, *h]).relu())
    torch.testing.assert_close(mixer(x, TokenSequence(5))[0], torch.stack(h), rtol=1e-5, atol=1e-6)


def lsh_by_loops(mixer: LSHAttention, x: torch.Tensor) -> torch.Tensor:
    """Compute LSH attention of one text, pair by pair."""
    n, heads = x.shape[1], mixer.num_heads
    qk, v = (part(x)[0].unflatten(-1, (heads, -1)).transpose(0, 1) for part in (mixer.qk, mixer.v))
    out = torch.zeros(heads, n, v.shape[-1])
    size, chunks = min(mixer.chunk, n), -(-n // min(mixer.chunk, n))
    for head, i in itertools.product(range(heads), range(n)):
        values, totals = [], []
        for r in range(len(mixer.hashes)):
            bucket = mixer.bucket(qk[None], torch.ones(1, 1, n, dtype=torch.bool), r)[0, head].tolist()
            order = sorted(range(n), key=lambda t: (bucket[t], t))
            chunk = {t: position // size for position, t in enumerate(order)}
            seen = [j for j in range(n) if bucket[j] == bucket[i] and chunk[j] in (chunk[i], (chunk[i] - 1) % chunks)]
            scores = torch.stack(
                [
                    qk[head, i] @ qk[head, j] / qk[head, j].norm() / v.shape[-1] ** 0.5
                    if j != i
                    else torch.tensor(-1e5)
                    for j in seen
                ]
            )
            values.append(scores.softmax(0) @ torch.stack([v[head, j] for j in seen]))
            totals.append(scores.logsumexp(0))
        out[head, i] = torch.stack(totals).softmax(0) @ torch.stack(values)
    return mixer.proj(merge_heads(out))[None]


@pytest.mark.parametrize(("n", "chunk"), [(1, 4), (4, 4), (8, 4), (13, 4), (11, 3), (12, 20)])
def test_lsh_attention_is_a_loop_over_pairs(n, chunk):
    mixer, x = LSHAttention(8, 2, buckets=4, rounds=3, chunk=chunk), torch.randn(1, n, 8)
    torch.testing.assert_close(mixer(x, TokenSequence(n)), lsh_by_loops(mixer, x), rtol=1e-4, atol=1e-5)


def test_lsh_attention_with_one_bucket_is_full_attention_of_shared_queries_and_keys():
    mixer, x = LSHAttention(8, 2, buckets=1, rounds=1, chunk=16), torch.randn(2, 9, 8)
    qk, v = (part(x).unflatten(-1, (2, -1)).transpose(1, 2) for part in (mixer.qk, mixer.v))
    itself = torch.zeros(9, 9).fill_diagonal_(-torch.inf)
    want = attend(qk, qk / qk.norm(dim=-1, keepdim=True), v, itself)
    torch.testing.assert_close(mixer(x, TokenSequence(9)), mixer.proj(merge_heads(want)), rtol=1e-5, atol=1e-5)


def test_mixed_attention_is_a_loop_over_spans():
    mixer, x = MixedAttention(8, 4, kernel_size=3), torch.randn(1, 6, 8)
    q, values, spans = mixer.qkv(x)[0, :, :4], mixer.conv_v(x)[0], mixer.span(x)[0]
    conv = torch.zeros(6, 4)
    for i, head in itertools.product(range(6), range(2)):
        kernel = mixer.kernel(spans[i] * q[i]).view(2, 3)[head].softmax(0)
        for j in range(3):
            if 0 <= i + j - 1 < 6:
                conv[i, 2 * head : 2 * head + 2] += kernel[j] * values[i + j - 1, 2 * head : 2 * head + 2]
    parts = [part.unflatten(-1, (2, -1)).transpose(1, 2) for part in mixer.qkv(x).chunk(3, -1)]
    want = mixer.proj(torch.cat([merge_heads(attend(*parts, None))[0], conv], -1))
    torch.testing.assert_close(mixer(x, TokenSequence(6))[0], want, rtol=1e-5, atol=1e-6)


def reversible(depth: int = 3) -> ReversibleStack:
    return ReversibleStack(
        [ReversibleBlock(nn.LayerNorm(8), SelfAttention(8, 2), nn.LayerNorm(8), MLP(8, 16)) for _ in range(depth)]
    ).double()


def test_reversible_layers_have_the_gradients_of_stored_activations():
    stack, layout = reversible(), TokenSequence(5)
    x = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    operands = [x, *stack.parameters()]
    y1 = y2 = x
    for block in stack.blocks:
        y1, y2 = block(y1, y2, layout)
    got = stack(x, layout)
    torch.testing.assert_close(got, (y1 + y2) / 2)
    grads = torch.autograd.grad(got.sin().sum(), operands)
    torch.testing.assert_close(grads, torch.autograd.grad(((y1 + y2) / 2).sin().sum(), operands))
    x1, x2 = torch.randn(2, 1, 5, 8).double().unbind()
    block = stack.blocks[0]
    torch.testing.assert_close(block.invert(*block(x1, x2, layout), layout), (x1, x2))


@pytest.mark.parametrize("depth", [1, 6])
def test_reversible_layers_store_two_tensors_at_any_depth(depth):
    stack, stored = reversible(depth), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: stored.append(x) or x, lambda x: x):
        stack(torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True), TokenSequence(5))
    assert len(stored) == 2
