"""Words of patches against loops, and the receptive field of each."""

import pytest
import torch
from torch.nn.functional import conv2d, layer_norm

from vitrail.grid import Grid
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.visual_words import (
    InnerOuterBlock,
    SentenceProjection,
    SharedWordEmbedding,
    WordEmbedding,
    WordNormProjection,
)


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (5, 13)])
def test_words_patch_by_patch(size):
    embed, images = WordEmbedding(3, 6, patch_size=8), torch.randn(2, 3, *size)
    words, grid = embed(images)
    padded = torch.zeros(2, 3, 8 * grid.h, 8 * grid.w)
    padded[:, :, : size[0], : size[1]] = images
    for b in range(2):
        for i in range(grid.h):
            for j in range(grid.w):
                patch = padded[b : b + 1, :, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
                cells = conv2d(patch, embed.conv.weight, embed.conv.bias, stride=4, padding=3)[0]  # (c, 2, 2)
                want = [cells[:, n // 2, n % 2] + embed.position[0, n] for n in range(4)]
                torch.testing.assert_close(words[(b * grid.h + i) * grid.w + j], torch.stack(want))


@pytest.mark.parametrize(("kind", "changed"), [(WordEmbedding, [1]), (SharedWordEmbedding, [1, 2, 4, 5])])
def test_words_read_their_own_patch_only(kind, changed):
    embed, images = kind(3, 6, patch_size=8), torch.randn(1, 3, 16, 24)
    other = images.clone()
    other[0, :, 6:8, 14:16] += 1  # the bottom right corner of the second of 2 x 3 patches
    differs = (embed(other)[0] - embed(images)[0]).abs().flatten(1).amax(1) > 1e-6
    assert differs.nonzero().flatten().tolist() == changed


@pytest.mark.parametrize("kind", [SentenceProjection, WordNormProjection])
def test_projection_patch_by_patch(kind):
    project, words = kind(4, 6, 10), torch.randn(2 * 3, 4, 6)
    got = project(words, 3)
    for b in range(2):
        for n in range(3):
            sentence = words[3 * b + n]
            if kind is SentenceProjection:
                want = layer_norm(project.proj(layer_norm(sentence.flatten(), (24,))), (10,))
            else:
                want = project.proj(layer_norm(sentence, (6,)).flatten())
            torch.testing.assert_close(got[b, n], want)


def block(dim: int, heads: int) -> Block:
    """Build a block with random weights."""
    return Block(torch.nn.LayerNorm(dim), SelfAttention(dim, heads), torch.nn.LayerNorm(dim), MLP(dim, 2 * dim))


@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_inner_then_projection_then_outer(size):
    tnt, grid = InnerOuterBlock(block(4, 2), SentenceProjection(4, 4, 6), block(6, 3)), Grid(*size, prefix=1)
    patches = size[0] * size[1]
    words, x = torch.randn(2 * patches, 4, 4), torch.randn(2, grid.tokens, 6)
    got_words, got = tnt(words, x, grid)
    for b in range(2):
        tokens = [x[b, 0]]
        for n in range(patches):
            mixed = tnt.inner(words[None, b * patches + n], Grid(2, 2))
            torch.testing.assert_close(got_words[b * patches + n], mixed[0])
            tokens.append(x[b, 1 + n] + tnt.project(mixed, 1)[0, 0])
        torch.testing.assert_close(got[b], tnt.outer(torch.stack(tokens)[None], grid)[0])


def test_patches_exchange_nothing_before_the_outer_block():
    tnt, grid = InnerOuterBlock(block(4, 2), SentenceProjection(4, 4, 6), block(6, 3)), Grid(2, 2, prefix=1)
    words, x, order = torch.randn(4, 4, 4), torch.randn(1, 5, 6), torch.randperm(4)
    moved = torch.cat([x[:, :1], x[:, 1:][:, order]], dim=1)
    (a, x_a), (b, x_b) = tnt(words, x, grid), tnt(words[order], moved, grid)
    torch.testing.assert_close(b, a[order])
    torch.testing.assert_close(x_b[:, 1:], x_a[:, 1:][:, order])
