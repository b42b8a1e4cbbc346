"""Reformer against loops over tokens: hashed and local chunks, axial positions, reversible layers with dropout."""

import pytest
import torch
from torch import nn

from vitrail.errors import VitrailError
from vitrail.generation.generate import generate
from vitrail.layouts import TokenSequence
from vitrail.models import create_model
from vitrail.parts.axial_position import AxialPosition
from vitrail.parts.token_mixers.chunked_attention import CausalLSHAttention, LocalChunkAttention
from vitrail.training.distributed import FullyShardedParallel

SIZES = {
    "dim": 16,
    "num_heads": 2,
    "head_dim": 4,
    "vocab_size": 20,
    "hidden": 24,
    "attn_layers": ("local", "lsh", "lsh"),
}
CHUNKS = {"local_chunk": 4, "lsh_chunk": 4, "buckets": (2, 4), "rounds": 2, "dropout": 0.0}
PLACES = {"position_shape": (4, 8), "position_dims": (4, 12)}


def reformer(**fields):
    torch.manual_seed(0)
    model = create_model("reformer_crime_and_punishment", **{**SIZES, **CHUNKS, **PLACES, **fields})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else nn.init.normal_(parameter, mean=0.5, std=0.3)
    return model


def slow_lsh(mixer, x):
    """Attend by dictionaries of chunks, token by token; one text without padding `(N, C)`."""
    n, heads, size = len(x), mixer.num_heads, mixer.chunk
    qk, v = (layer(x).view(n, heads, -1) for layer in (mixer.qk, mixer.v))
    whole = n if n <= size else -(-n // mixer.multiple) * mixer.multiple
    rounds = mixer.rotations.shape[2] if n > size else 1
    out = x.new_zeros(n, heads, v.shape[-1])
    for h in range(heads):
        ring = []
        for r in range(rounds):
            buckets = []
            for i in range(n):
                turned, number, factor, at = qk[i, h] @ mixer.rotations[h, :, r], 0, 1, 0
                for count in mixer.buckets:
                    digit = turned[at : at + count // 2]
                    number += factor * int(torch.cat([digit, -digit]).argmax())
                    factor, at = factor * count, at + count // 2
                buckets.append(number if n > size else 0)
            order = sorted(range(n), key=lambda i: (buckets[i], i)) + list(range(n, whole))
            ring += [order[k : k + size] for k in range(0, whole, size)]
        values, sums = x.new_zeros(rounds, n, v.shape[-1]), x.new_zeros(rounds, n)
        for number, chunk in enumerate(ring):
            for i in (i for i in chunk if i < n):
                seen = [j for j in (ring[number - 1] if len(ring) > 1 else []) + chunk if j <= i]
                scores = [
                    -1e5 if j == i else float(qk[i, h] @ qk[j, h] / (qk[j, h].square().mean() * 3 + 3e-6).sqrt())
                    for j in seen
                ]
                weights = x.new_tensor(scores).softmax(0)
                r = number * size // whole
                values[r, i] = sum(w * v[j, h] for w, j in zip(weights, seen, strict=True))
                sums[r, i] = x.new_tensor(scores).logsumexp(0)
        out[:, h] = (sums.softmax(0)[..., None] * values).sum(0)
    return mixer.proj(out.flatten(1))


@pytest.mark.parametrize(("n", "chunk", "multiple"), [(1, 4, 4), (4, 4, 4), (5, 4, 4), (13, 4, 8), (16, 8, 8)])
@torch.no_grad()
def test_lsh_attention_equals_the_loop(n, chunk, multiple):
    mixer = CausalLSHAttention(6, 2, 3, buckets=(2, 4), rounds=2, chunk=chunk, multiple=multiple).double()
    x = torch.randn(2, n, 6, dtype=torch.double)
    want = torch.stack([slow_lsh(mixer, text) for text in x])
    torch.testing.assert_close(mixer(x, TokenSequence(n)), want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("n", "chunk"), [(1, 4), (4, 4), (7, 3)])
def test_local_attention_equals_the_loop_with_gradients(n, chunk):
    mixer, x = LocalChunkAttention(6, 2, 3, chunk).double(), torch.randn(n, 6, dtype=torch.double, requires_grad=True)
    q, k, v = (layer(x).view(n, 2, 3) for layer in (mixer.q, mixer.k, mixer.v))
    rows = []
    for i in range(n):
        seen = [j for j in range(i + 1) if j // chunk >= i // chunk - 1]
        weights = (torch.stack([(q[i] * k[j]).sum(-1) for j in seen]) / 3**0.5).softmax(0)  # (keys, heads)
        rows.append((weights[..., None] * v[seen]).sum(0).flatten())
    want, got = mixer.proj(torch.stack(rows)), mixer(x[None], TokenSequence(n))[0]
    torch.testing.assert_close(got, want)
    one, other = (torch.autograd.grad(y.sin().sum(), [x, *mixer.parameters()], retain_graph=True) for y in (got, want))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b)


@torch.no_grad()
def test_padding_changes_no_result_of_hashed_text():
    model, texts = reformer().eval(), [torch.randint(0, 20, (n,)) for n in (13, 3, 4, 5, 9)]
    lengths = torch.tensor([len(text) for text in texts])
    got = model(nn.utils.rnn.pad_sequence(texts, batch_first=True), TokenSequence(13, lengths=lengths))
    for row, text in zip(got, texts, strict=True):
        torch.testing.assert_close(row[: len(text)], model(text[None])[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_decoded_text_is_the_greedy_path_of_the_whole_model():
    model = reformer().eval()
    want = [[3, 1, 4, 1, 5, 9], [2, 6]]
    found = generate(model, want, max_new=5)
    for text, new in zip(want, found, strict=True):
        for token in new:
            text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
            assert text[-1] == token


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputed_gradients_equal_stored_ones(dropout):
    model, ids = reformer(dropout=dropout).double().train(), torch.randint(0, 20, (2, 11))
    block = model.backbone.stages[0]

    def stored(x, grid):
        y1 = y2 = x
        for each in block.blocks:
            y1, y2 = each(y1, y2, grid)
        return torch.cat([y1, y2], dim=-1), grid

    gradients = []
    for forward in (block.forward, stored):
        block.forward = forward
        torch.manual_seed(1)
        model.zero_grad()
        model(ids).sin().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, grad in gradients[0].items():
        torch.testing.assert_close(grad, gradients[1][name], rtol=1e-6, atol=1e-9)


def test_positions_are_pairs_and_bounded():
    position = AxialPosition((2, 3), (2, 1))
    x, _ = position(torch.zeros(1, 2, 3), TokenSequence(2, start=3))
    torch.testing.assert_close(x[0, 1], torch.cat([position.rows[1], position.columns[1]]))
    with pytest.raises(VitrailError, match="7 tokens, and this model has positions for 6"):
        position(torch.zeros(1, 7, 3), TokenSequence(7))


def test_faults_are_reported():
    with pytest.raises(VitrailError, match=r"must be even, got \(3,\)"):
        CausalLSHAttention(4, 1, 4, buckets=(3,))
    with pytest.raises(VitrailError, match="multiple of 6 cannot be cut into chunks of 4"):
        CausalLSHAttention(4, 1, 4, chunk=4, multiple=6)
    with pytest.raises(VitrailError, match="Unknown layer of attn_layers 'full'"):
        reformer(attn_layers=("full",))
    with pytest.raises(VitrailError, match="for which FSDP does not gather weights"):
        FullyShardedParallel.wrap(object.__new__(FullyShardedParallel), reformer())
