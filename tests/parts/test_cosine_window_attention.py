"""Window attention of Swin V2 against a loop over windows and pairs, and the identities of its bias."""

from math import exp, log, log2

import pytest
import torch

from vitrail.grid import Grid
from vitrail.parts.cosine import CosineNorm
from vitrail.parts.log_spaced_position import LogSpacedPositionBias
from vitrail.parts.res_post_norm_block import ResPostNormBlock
from vitrail.parts.token_mixers.cosine_window_attention import CosineWindowAttention
from vitrail.parts.token_mixers.self_attention import SelfAttention


def mixer_of(window: int, shift: int = 0, pretrained: int = 0) -> CosineWindowAttention:
    mixer = CosineWindowAttention(4, 2, window, shift, pretrained).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter)
    return mixer


def offset(cells: int, window: int) -> float:
    u = 8 * cells / max(window - 1, 1)
    return (1 if u > 0 else -1) * log2(1 + abs(u)) / 3


def twin(mixer: CosineWindowAttention, x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Compute the attention of one image `(N, C)` pair by pair: pad, roll, cut into windows."""
    w, heads, dim = mixer.window_size, mixer.num_heads, x.shape[1]
    sides = [-(-n // w) * w for n in (grid.h, grid.w)]
    shifts = [mixer.shift if n > w else 0 for n in (grid.h, grid.w)]
    out = torch.zeros_like(x)

    def source(place: tuple[int, ...]) -> tuple[int, ...]:
        return tuple((p + s) % n for p, s, n in zip(place, shifts, sides, strict=True))

    def region(place: tuple[int, ...]) -> list[int]:
        return [(p >= n - w) * (s > 0) + (p >= n - s) for p, s, n in zip(place, shifts, sides, strict=True)]

    places = [(y, x_) for y in range(sides[0]) for x_ in range(sides[1])]
    inside = {p: all(a < n for a, n in zip(source(p), (grid.h, grid.w), strict=True)) for p in places}
    tokens = {p: source(p)[0] * grid.w + source(p)[1] for p in places}
    parts = {
        p: mixer.qkv((x[tokens[p]] if inside[p] else x.new_zeros(dim))[None, None])[0, 0].view(3, heads, -1)
        for p in places
    }
    for p in filter(inside.__getitem__, places):
        seen = [o for o in places if (o[0] // w, o[1] // w) == (p[0] // w, p[1] // w)]
        heads_out = []
        for h in range(heads):
            q = parts[p][0, h]
            scores = []
            for o in seen:
                k = parts[o][1, h]
                cosine = q @ k / (q.norm() * k.norm().clamp(min=1e-12))
                there = x.new_tensor([offset(a - b, mixer.position.pretrained or w) for a, b in zip(p, o, strict=True)])
                bias = 16 * torch.sigmoid(mixer.position.mlp(there)[h])
                scale = exp(min(mixer.qk_norm.log_scale[h].item(), log(100)))
                scores.append(cosine * scale + bias - 100.0 * (region(p) != region(o)))
            shares = torch.stack(scores).softmax(0)
            heads_out.append(sum(a * parts[o][2, h] for a, o in zip(shares, seen, strict=True)))
        out[tokens[p]] = mixer.proj(torch.cat(heads_out))
    return out


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 5), (4, 4), (5, 4)])
@pytest.mark.parametrize(("window", "shift", "pretrained"), [(4, 2, 0), (3, 1, 2), (2, 0, 4)])
def test_against_the_twin(size, window, shift, pretrained):
    grid, mixer = Grid(*size), mixer_of(window, shift, pretrained)
    x = torch.randn(1, grid.tokens, 4, dtype=torch.double, requires_grad=True)
    got, want = mixer(x, grid)[0], twin(mixer, x[0], grid)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)  # offsets are fp32
    weights = torch.randn_like(got)
    learned = [x, mixer.qkv.linear.weight, mixer.qkv.q_bias, mixer.qkv.v_bias, *mixer.position.parameters()]
    gradients = [torch.autograd.grad((y * weights).sum(), learned, retain_graph=True) for y in (got, want)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_a_window_that_covers_the_grid_is_global_attention():
    grid, mixer = Grid(5, 5), mixer_of(5, shift=2)
    globally = SelfAttention(4, 2, position=mixer.position, qk_norm=mixer.qk_norm).double()
    globally.load_state_dict(
        {
            **globally.state_dict(),
            **{f"proj.{key}": value for key, value in mixer.proj.state_dict().items()},
            "qkv.weight": mixer.qkv.linear.weight,
            "qkv.bias": mixer.qkv.bias,
        }
    )
    x = torch.randn(2, 25, 4, dtype=torch.double)
    torch.testing.assert_close(mixer(x, grid), globally(x, grid))


def test_scores_do_not_depend_on_the_length_of_queries_and_keys():
    norm, (q, k) = CosineNorm(2).double(), torch.randn(2, 1, 2, 5, 4, dtype=torch.double)
    torch.testing.assert_close(norm(3 * q, 0.1 * k), norm(q, k))
    with torch.no_grad():
        norm.log_scale.fill_(9.0)  # tau ends at 0.01
    scores = torch.einsum("bhnd,bhmd->bhnm", *norm(q, q)) / 4**0.5
    torch.testing.assert_close(scores.diagonal(dim1=-2, dim2=-1), torch.full((1, 2, 5), 100.0, dtype=torch.double))


def test_a_larger_window_keeps_the_bias_of_the_offsets_that_were_trained():
    small, large = LogSpacedPositionBias(3, 4), LogSpacedPositionBias(3, 7, pretrained_window=4)
    large.load_state_dict(small.state_dict())
    q = torch.zeros(1, 3, 12, 1)
    torch.testing.assert_close(large.bias(q, Grid(4, 3)), small.bias(q, Grid(4, 3)))
    assert not torch.allclose(LogSpacedPositionBias(3, 7).bias(q, Grid(4, 4)), small.bias(q, Grid(4, 4)))


def test_a_new_block_is_the_identity_and_then_adds_what_the_norms_give():
    norms = torch.nn.LayerNorm(4), torch.nn.LayerNorm(4)
    block = ResPostNormBlock(norms[0], mixer := CosineWindowAttention(4, 2, 3), norms[1], mixer)
    x, grid = torch.randn(2, 15, 4), Grid(3, 5)
    assert torch.equal(block(x, grid), x)
    for norm in norms:
        torch.nn.init.normal_(norm.weight)
    y = x + norms[0](mixer(x, grid))
    torch.testing.assert_close(block(x, grid), y + norms[1](mixer(y, grid)))
