"""Class tokens that read another scale, against loops; both scales on one grid; patches by three convolutions."""

import pytest
import torch
from torch.nn.functional import gelu

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.models import create_model
from vitrail.parts.two_scales import CrossFusion, ThreeConvPatches, TwoScaleEmbedding, join


@pytest.mark.parametrize("grid", [Grid(1, 1, prefix=1), Grid(1, 7, prefix=1), Grid(3, 5, prefix=1)])
def test_fusion_key_by_key_with_gradients(grid):
    fusion = CrossFusion(4, 6, num_heads=2, drop_path=0.0).double()
    x = torch.randn(2, 3, 4, dtype=torch.double, requires_grad=True)
    others = torch.randn(2, grid.tokens, 6, dtype=torch.double, requires_grad=True)
    got, want, mixer = fusion(x, others, grid), [], fusion.token_mixer
    for b in range(2):
        projected = fusion.project[2](gelu(fusion.project[0](x[b, 0])))
        tokens = [fusion.norm(token) for token in (projected, *others[b, 1:])]
        q, heads = mixer.q(tokens[0]), []
        k, v = torch.stack([mixer.kv(token) for token in tokens]).chunk(2, dim=-1)
        for h in (slice(0, 3), slice(3, 6)):
            weights = torch.stack([(q[h] @ k[m, h]) / 3**0.5 for m in range(grid.tokens)]).softmax(0)
            heads.append(sum(weights[m] * v[m, h] for m in range(grid.tokens)))
        updated = projected + mixer.proj(torch.cat(heads))
        want.append(torch.stack([fusion.revert[2](gelu(fusion.revert[0](updated))), *x[b, 1:]]))
    torch.testing.assert_close(got, torch.stack(want))
    inputs, seed = (x, others, *fusion.parameters()), torch.randn_like(got)
    expected = torch.autograd.grad(torch.stack(want), inputs, seed)
    for a, b in zip(torch.autograd.grad(got, inputs, seed), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_joined_tokens_hold_both_scales_at_the_same_place():
    fine, coarse = Grid(4, 6, prefix=1), Grid(2, 3, prefix=1)
    x, y = torch.randn(2, 25, 3), torch.randn(2, 7, 5)
    got = join(x, y, fine, coarse)
    torch.testing.assert_close(got[..., :3], x)
    torch.testing.assert_close(got[:, 0, 3:], y[:, 0])
    for i in range(4):
        for j in range(6):
            torch.testing.assert_close(fine.cells(got)[:, i, j, 3:], coarse.cells(y)[:, i // 2, j // 2])


def test_the_coarse_scale_is_the_published_one():
    for name, fine, coarse in (("crossvit_tiny_240", 20, 14), ("crossvit_15_dagger_408", 34, 24)):
        model = create_model(name, depth=1, coarse_depth=1)
        size = model.preprocess.size
        embedding = model.backbone.embedding
        assert isinstance(embedding, TwoScaleEmbedding)
        assert embedding(torch.zeros(1, 3, size, size))[2:] == (Grid(fine, fine, 1), Grid(coarse, coarse, 1))


@pytest.mark.parametrize("patch_size", [12, 16])
def test_three_convolutions_cut_as_many_patches_as_one(patch_size):
    patches = ThreeConvPatches(3, 8, patch_size)
    assert patches(torch.zeros(1, 3, 2 * patch_size, 3 * patch_size - 1))[1] == Grid(2, 3)
    with pytest.raises(VitrailError, match="have 12 or 16 pixels, got 14"):
        ThreeConvPatches(3, 8, 14)
