"""From images to tokens."""

import pytest
import torch
from torch import nn

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.parts.embeddings import (
    ConvStem,
    Embedding,
    MapPatches,
    OverlappingPatchEmbedding,
    PatchEmbedding,
    PrefixTokens,
    TokenSteps,
)
from vitrail.parts.positions import LearnedPosition


@pytest.mark.parametrize("size", [(8, 12), (7, 10), (1, 1)])
def test_each_patch_is_projected_alone_and_zeros_complete_the_last(size):
    embedding = PatchEmbedding(3, 5, patch_size=4)
    nn.init.normal_(embedding.proj.bias)
    images = torch.randn(2, 3, *size)
    got, grid = embedding(images)
    assert grid == Grid(-(-size[0] // 4), -(-size[1] // 4))
    whole = torch.zeros(2, 3, grid.h * 4, grid.w * 4)
    whole[:, :, : size[0], : size[1]] = images
    for y in range(grid.h):
        for x in range(grid.w):
            patch = whole[:, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].flatten(1)
            want = patch @ embedding.proj.weight.flatten(1).T + embedding.proj.bias
            torch.testing.assert_close(got[:, y * grid.w + x], want)


def test_tokens_leave_an_embedding_in_the_order_that_memory_is_read():
    images = torch.randn(2, 3, 16, 16)
    for embedding in (PatchEmbedding(3, 8, 4), OverlappingPatchEmbedding(3, 8, 7, stride=4, padding=2)):
        assert embedding(images)[0].is_contiguous()


def test_overlapping_patches_refuse_an_image_without_one():
    embedding = OverlappingPatchEmbedding(1, 2, patch_size=7, stride=4, padding=2)
    assert embedding(torch.zeros(1, 1, 3, 4))[1] == Grid(1, 1)
    with pytest.raises(VitrailError, match="at least 3 x 3"):
        embedding(torch.zeros(1, 1, 4, 2))


def test_patches_of_a_map_are_patches_of_an_image():
    patches = MapPatches(3, 5, patch_size=2)
    images = torch.randn(2, 3, 4, 6)
    got, grid = patches(images.permute(0, 2, 3, 1).flatten(1, 2), Grid(4, 6))
    want, want_grid = patches.patches(images)
    assert grid == want_grid
    torch.testing.assert_close(got, want)


def test_prefix_tokens_come_first_and_are_counted():
    prefix = PrefixTokens(4, count=2)
    x = torch.randn(3, 6, 4)
    got, grid = prefix(x, Grid(2, 3))
    assert grid == Grid(2, 3, prefix=2)
    assert torch.equal(got[:, 2:], x)
    assert torch.equal(got[:, :2], prefix.tokens.expand(3, -1, -1))


def test_steps_are_taken_in_order():
    steps = [PrefixTokens(4), LearnedPosition(4, Grid(2, 2, prefix=1))]
    embedding = Embedding(PatchEmbedding(3, 4, 4), steps)
    images = torch.randn(1, 3, 8, 8)
    x, grid = embedding.patches(images)
    want, want_grid = steps[1](*steps[0](x, grid))
    got, got_grid = embedding(images)
    assert torch.equal(got, want)
    assert got_grid == want_grid == Grid(2, 2, prefix=1)
    assert TokenSteps([])(x, grid)[0] is x


def test_a_stem_convolves_normalises_and_pools():
    stem = ConvStem(nn.Conv2d(3, 4, 3, 2, 1), nn.GroupNorm(2, 4), nn.MaxPool2d(2))
    images = torch.randn(2, 3, 16, 12)
    want = stem.pool(stem.norm(stem.conv(images)))
    got, grid = stem(images)
    assert grid == Grid(4, 3)
    torch.testing.assert_close(grid.cells(got), want.permute(0, 2, 3, 1))
