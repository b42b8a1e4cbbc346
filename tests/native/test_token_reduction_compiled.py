"""Tokens merged and pruned in one call, against the specification in PyTorch."""

import pytest
import torch

from vitrail.grid import Grid
from vitrail.native import build
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.token_reduction import TokenSet, keep_tokens, merge_tokens
from vitrail.parts.token_reduction import KeepAttended, MergedTokens, MergeSimilar, ReducedTokens

DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if build.refusal(dtype, "token_reduction") is None]
pytestmark = pytest.mark.skipif(not DTYPES, reason="no native libraries here")
WAYS = {"merge": (MergeSimilar(3), MergedTokens, merge_tokens), "keep": (KeepAttended(0.4), ReducedTokens, keep_tokens)}


def given(kind, tokens, prefix, wide, dtype, batch=2):
    draw = torch.Generator().manual_seed(tokens)
    qkv = torch.randn(batch, tokens, 3, 2, wide, generator=draw).to(dtype)
    x = torch.randn(batch, tokens, 19, generator=draw).to(RESIDUAL[dtype])
    layout = kind.whole(Grid(1, tokens + 1 - prefix, prefix), torch.zeros(batch, tokens + 1, 1))
    source = torch.arange(tokens + 1).clamp(max=tokens - 1).expand(batch, -1)  # the last token has two places
    sizes = torch.ones(batch, tokens)
    sizes[:, -1] = 2
    return qkv, x, kind(layout.grid, source, sizes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("tokens", "prefix", "head_dim", "extra"), [(9, 0, 8, 0), (34, 1, 21, 2), (37, 2, 64, 2)])
def test_one_call_is_the_specification(way, tokens, prefix, head_dim, extra, dtype):
    reduction, kind, native = WAYS[way]
    qkv, x, layout = given(kind, tokens, prefix, head_dim + extra, dtype)
    q, k = (qkv[:, :, part, :, :head_dim].transpose(1, 2).float() for part in (0, 1))
    assignment = reduction(q * head_dim**0.5, k, layout)
    wanted = layout.reduce(assignment)
    flat = TokenSet(x, layout.sizes, layout.source, prefix)
    got = native(qkv.flatten(2), 2, head_dim, flat, reduction.count(layout))
    assert torch.equal(got.source, wanted.source) and torch.equal(got.sizes, wanted.sizes)
    assert got.x.dtype == x.dtype and got.prefix == prefix
    assert torch.allclose(got.x.float(), assignment.pool(x.float()), atol=1e-6 if dtype == torch.float32 else 2e-3)


@pytest.mark.parametrize("way", WAYS)
def test_nan_stays_in_its_image(way):
    reduction, kind, native = WAYS[way]
    qkv, x, layout = given(kind, 12, 1, 8, DTYPES[0])
    qkv[0, 5], x[0, 5] = torch.nan, torch.nan
    tokens = TokenSet(x, layout.sizes, layout.source, 1)
    got = native(qkv.flatten(2), 2, 8, tokens, reduction.count(layout))
    assert got.x[0].isnan().any() and got.x[1].isfinite().all()
    assert torch.equal(got.sizes.sum(1), torch.full((2,), 13.0))


def test_results_do_not_depend_on_the_threads():
    reduction, kind, native = WAYS["merge"]
    qkv, x, layout = given(kind, 33, 1, 8, DTYPES[0], batch=3)
    tokens, before = TokenSet(x, layout.sizes, layout.source, 1), torch.get_num_threads()
    try:
        one, three = [
            native(qkv.flatten(2), 2, 8, tokens, reduction.count(layout))
            for threads in (1, 3)
            if torch.set_num_threads(threads) is None
        ]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one.x, three.x) and torch.equal(one.source, three.source)
