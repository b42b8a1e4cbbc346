"""Window attention by a table, against loops over tokens, and against identities."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from vitrail.kernels.attention.reference import attend as global_attention
from vitrail.kernels.window import gather, reference, window

every_backend = pytest.mark.parametrize("attend", [reference, gather], ids=["reference", "gather_sdpa"])


def loops(
    qkv: Tensor, padding: Tensor | None, bias: Tensor | None, mask_index: Tensor, token_index: Tensor, heads: int
) -> Tensor:
    """Attend query by query, as the words of the specification say it."""
    batch, tokens, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    empty = qkv.new_zeros(3 * width) if padding is None else padding
    out = []
    for token in range(tokens):
        group, place = (token_index == token).nonzero()[0].tolist()
        for head in range(heads):
            of = slice(head * width // heads, (head + 1) * width // heads)
            parts = [
                (qkv[:, slot] if slot >= 0 else empty.expand(batch, -1)).unflatten(1, (3, width))[:, :, of]
                for slot in token_index[group].tolist()
            ]
            query = qkv[:, token].unflatten(1, (3, width))[:, 0, of]
            scores = torch.stack([(query * part[:, 1]).sum(1) for part in parts], 1) / (width // heads) ** 0.5
            if bias is not None:
                scores = scores + bias[mask_index[group], min(head, bias.shape[1] - 1), place]
            weights = scores.softmax(1)
            out.append(sum(weights[:, i, None] * part[:, 2] for i, part in enumerate(parts)))
    return torch.stack(out, 1).unflatten(1, (tokens, heads)).flatten(2)  # pyright: ignore[reportArgumentType]


def draw(tokens: int, groups: int, n: int, heads: int = 2, d: int = 2, masks: int = 2, batch: int = 2):
    """Draw a table in which each token sits once, the rest being padding, and its operands."""
    table = torch.cat([torch.arange(tokens), torch.full((groups * n - tokens,), -1)])
    token_index = table[torch.randperm(groups * n)].reshape(groups, n)
    leaves = [
        torch.randn(batch, tokens, 3 * heads * d),
        torch.randn(3 * heads * d),
        torch.randn(masks, heads, n, n),
    ]
    qkv, padding, bias = (x.double().requires_grad_() for x in leaves)
    return qkv, padding, bias, torch.randint(masks, (groups,)), token_index, heads


CASES = [(1, 1, 1), (6, 2, 3), (5, 2, 3), (7, 3, 4), (9, 1, 9), (4, 4, 1)]


@pytest.mark.parametrize("case", CASES, ids=str)
@every_backend
def test_outputs_and_gradients_are_those_of_the_loops(attend, case):
    given = draw(*case)
    leaves, want = given[:3], loops(*given)
    towards = torch.randn_like(want)
    got = attend(*given)
    torch.testing.assert_close(got, want)
    both = [torch.autograd.grad(out, leaves, towards, materialize_grads=True) for out in (got, want)]
    for mine, theirs in zip(*both, strict=True):
        torch.testing.assert_close(mine, theirs)


@every_backend
def test_omitted_arguments_equal_zeros(attend):
    qkv, padding, bias, mask_index, token_index, heads = draw(5, 2, 3)
    without = attend(qkv, None, None, mask_index, token_index, heads)
    torch.testing.assert_close(without, attend(qkv, 0 * padding, 0 * bias, mask_index, token_index, heads))
    torch.testing.assert_close(without, loops(qkv, None, None, mask_index, token_index, heads))


@every_backend
def test_one_addend_may_serve_all_heads_and_all_groups(attend):
    qkv, padding, bias, mask_index, token_index, heads = draw(5, 2, 3)
    shared = bias[:, :1]
    for addend, which in ((shared, mask_index), (bias[:1], 0 * mask_index), (shared[:1], 0 * mask_index)):
        full = addend.expand(-1, heads, -1, -1)
        got, want = (attend(qkv, padding, x, which, token_index, heads) for x in (addend, full))
        torch.testing.assert_close(got, want)


@every_backend
def test_one_group_of_all_tokens_is_global_attention(attend):
    qkv, _, bias, mask_index, _, heads = draw(9, 1, 9)
    token_index = torch.arange(9)[None]
    q, k, v = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    want = global_attention(q, k, v, bias[mask_index[0]]).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attend(qkv, None, bias, mask_index, token_index, heads), want)


@every_backend
def test_attention_commutes_with_permutation(attend):
    qkv, padding, bias, mask_index, token_index, heads = draw(7, 3, 4)
    order = torch.randperm(7)
    moved = torch.where(token_index < 0, token_index, order.argsort()[token_index])
    got = attend(qkv[:, order], padding, bias, mask_index, moved, heads)
    torch.testing.assert_close(got, attend(qkv, padding, bias, mask_index, token_index, heads)[:, order])


def test_the_gradient_is_the_finite_difference():
    given = draw(5, 2, 3, heads=1, batch=1)
    assert gradcheck(lambda *leaves: gather(*leaves, *given[3:]), given[:3])


def test_gradients_are_the_same_bits_each_time():
    qkv, padding, bias, mask_index, token_index, heads = draw(300, 7, 49, heads=4, d=8, masks=3)
    qkv, padding, bias = (x.detach().float().requires_grad_() for x in (qkv, padding, bias))
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)  # an operator without a fixed order would raise
    try:
        outs = [gather(qkv, padding, bias, mask_index, token_index, heads).square().sum() for _ in range(3)]
        runs = [torch.autograd.grad(out, (qkv, padding, bias)) for out in outs]
    finally:
        torch.use_deterministic_algorithms(strict)
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for again in runs[1:] for a, b in zip(runs[0], again, strict=True))


def test_the_fast_backend_runs_if_supported():
    qkv, padding, bias, mask_index, token_index, heads = draw(5, 2, 3)
    said = dict(window.explain(qkv, padding, bias, mask_index, token_index, heads))
    assert said["gather_sdpa"] is None and said["reference"] is None
    assert "floating point" in str(
        dict(window.explain(qkv.long(), padding, bias, mask_index, token_index, heads))["gather_sdpa"]
    )
