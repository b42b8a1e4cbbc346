"""Blocks and norms of language models: formulas in float64, PyTorch's layers, gradient norms by depth."""

import pytest
import torch
from torch import nn

from vitrail.layouts import TokenSequence
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.initialisation import initialise
from vitrail.parts.sequence_blocks import DecoderBlock, PostNormBlock, PostNormDecoderBlock, deepnorm_constants
from vitrail.parts.sequence_norms import PowerNorm, RMSNorm
from vitrail.parts.token_mixers.causal_attention import CausalAttention
from vitrail.parts.token_mixers.cross_attention import CrossAttention
from vitrail.parts.token_mixers.self_attention import SelfAttention


def encoder_block(make, dim=12, hidden=24, **options):
    return make(nn.LayerNorm(dim), SelfAttention(dim, 3), nn.LayerNorm(dim), MLP(dim, hidden, nn.ReLU()), **options)


def fill_attention(theirs, ours):
    cross = isinstance(ours, CrossAttention)
    weight, bias = (
        torch.cat([getattr(ours.q, p), getattr(ours.kv, p)]) if cross else getattr(ours.qkv, p)
        for p in ("weight", "bias")
    )
    with torch.no_grad():
        theirs.in_proj_weight.copy_(weight)
        theirs.in_proj_bias.copy_(bias)
    theirs.out_proj.load_state_dict(ours.proj.state_dict())


@pytest.mark.parametrize("make", [Block, PostNormBlock])
def test_encoder_blocks_equal_pytorchs(make):
    ours = encoder_block(make)
    theirs = nn.TransformerEncoderLayer(12, 3, 24, dropout=0.0, batch_first=True, norm_first=make is Block)
    fill_attention(theirs.self_attn, ours.token_mixer)
    for mine, name in (
        ("norm1", "norm1"),
        ("norm2", "norm2"),
        ("channel_mixer.fc1", "linear1"),
        ("channel_mixer.fc2", "linear2"),
    ):
        theirs.get_submodule(name).load_state_dict(ours.get_submodule(mine).state_dict())
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(ours(x, TokenSequence(5)), theirs(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [DecoderBlock, PostNormDecoderBlock])
def test_decoder_blocks_equal_pytorchs(make):
    norms = [nn.LayerNorm(12) for _ in range(3)]
    mlp = MLP(12, 24, nn.ReLU())
    ours = make(norms[0], CausalAttention(12, 3), norms[1], CrossAttention(12, 3), norms[2], mlp)
    theirs = nn.TransformerDecoderLayer(12, 3, 24, dropout=0.0, batch_first=True, norm_first=make is DecoderBlock)
    fill_attention(theirs.self_attn, ours.token_mixer)
    fill_attention(theirs.multihead_attn, ours.cross_mixer)
    theirs.linear1.load_state_dict(mlp.fc1.state_dict())
    theirs.linear2.load_state_dict(mlp.fc2.state_dict())
    x, memory = torch.randn(2, 4, 12), torch.randn(2, 6, 12)
    mask = nn.Transformer.generate_square_subsequent_mask(4)
    want = theirs(x, memory, tgt_mask=mask, tgt_is_causal=True)
    torch.testing.assert_close(ours(x, TokenSequence(4, memory=memory)), want, rtol=1e-5, atol=1e-6)


def test_deepnorm_scales_the_residual():
    block, x, layout = encoder_block(PostNormBlock, alpha=2.0), torch.randn(1, 3, 12), TokenSequence(3)
    half = block.norm1(2 * x + block.token_mixer(x, layout))
    assert torch.equal(block(x, layout), block.norm2(2 * half + block.channel_mixer(half, layout)))
    assert deepnorm_constants(18) == (36**0.25, 144**-0.25)


def gradient_profile(make) -> float:
    """Return the gradient norm in the last third of 12 blocks over that in the first third, at initialisation."""
    blocks = nn.ModuleList([encoder_block(make, dim=48, hidden=192) for _ in range(12)])
    head, x = nn.Linear(48, 50), torch.randn(4, 16, 48)
    initialise(blocks)
    initialise(head)
    for block in blocks:
        x = block(x, TokenSequence(16))
    last = nn.functional.layer_norm(x, (48,))  # pre-norm ends in a norm; after post-norm it changes nothing
    nn.functional.cross_entropy(head(last).flatten(0, 1), torch.randint(0, 50, (64,))).backward()
    norms = torch.stack([block.get_parameter("channel_mixer.fc2.weight").grad.norm() for block in blocks])
    return (norms[-4:].mean() / norms[:4].mean()).item()


def test_gradients_of_pre_norm_shrink_towards_the_last_layer_and_those_of_post_norm_do_not():
    # "On Layer Normalization in the Transformer Architecture", section 3.3: pre-norm's shrink with the depth.
    pre, post = (sum(gradient_profile(make) for _ in range(3)) / 3 for make in (Block, PostNormBlock))
    assert pre < 0.7 and post > 0.85


def test_rms_norm_follows_the_formula():
    norm, x = RMSNorm(6, eps=1e-5), torch.randn(2, 3, 6)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0)
    wide = x.double()
    want = wide / (wide.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight.double()
    torch.testing.assert_close(norm(x).double(), want, rtol=1e-6, atol=1e-6)
    assert norm.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(RMSNorm(6)(x), nn.RMSNorm(6, eps=1e-6)(x))


def test_power_norm_follows_the_formulas_of_three_steps():
    norm = PowerNorm(5, momentum=0.8).double().train()
    psi2, nu = torch.ones(5).double(), torch.zeros(5).double()
    for _ in range(3):
        x = torch.randn(4, 7, 5, dtype=torch.float64, requires_grad=True)
        g = torch.randn(4, 7, 5, dtype=torch.float64)
        y = norm(x)
        z = x.detach() / (psi2 + 1e-5).sqrt()
        torch.testing.assert_close(y, z)
        (into_x,) = torch.autograd.grad(y, x, g)
        torch.testing.assert_close(into_x, (g - nu * z) / (psi2 + 1e-5).sqrt())
        psi2 = 0.8 * psi2 + 0.2 * x.detach().pow(2).mean((0, 1))
        nu = nu * (1 - 0.2 * z.pow(2).mean((0, 1))) + 0.2 * (g * z).mean((0, 1))
        torch.testing.assert_close((norm.mean_square, norm.gradient), (psi2, nu))
    fresh = torch.randn(1, 2, 5).double()
    torch.testing.assert_close(norm.eval()(fresh), fresh / (psi2 + 1e-5).sqrt())


def test_power_norm_converges_to_the_gradient_of_batch_statistics():
    norm, batch, g = PowerNorm(4).double().train(), torch.randn(8, 16, 4).double() * 3, torch.randn(8, 16, 4).double()
    for _ in range(300):
        x = batch.clone().requires_grad_()
        (got,) = torch.autograd.grad(norm(x), x, g)
    x = batch.clone().requires_grad_()
    (want,) = torch.autograd.grad(x / (x.pow(2).mean((0, 1)) + 1e-5).sqrt(), x, g)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
