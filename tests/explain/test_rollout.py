"""Rollout is the product that the paper writes down, at every size, with and without windows and stages."""

import numpy as np
import pytest
import torch

from vitrail.errors import VitrailError
from vitrail.explain.geometry import owner_of_cells
from vitrail.explain.maps import attention_maps
from vitrail.explain.rollout import compose, reading, rollout, unmerge
from vitrail.grid import Grid


def captured(model, images):
    with attention_maps(model) as maps, torch.no_grad():
        features = model.features(images)
    return maps, features


@pytest.mark.parametrize("kind", ["vit", "deit"])
def test_rollout_is_the_classic_formula_written_with_loops(build, images, kind):
    model = build(kind)
    maps, _ = captured(model, images)
    for b in range(2):
        joint = np.eye(maps[0].grid.tokens)
        for map in maps:
            attention = map.probabilities[b, 0].double().numpy()
            mean = sum(attention[h] for h in range(map.heads)) / map.heads
            mixed = mean + np.eye(len(mean))
            for i in range(len(mixed)):
                mixed[i] /= mixed[i].sum()
            joint = mixed @ joint
        assert np.abs(compose(maps)[b].numpy() - joint).max() < 1e-6
        if kind == "vit":
            cells = joint[0, 1:].reshape(maps[0].grid.h, maps[0].grid.w)
            assert np.abs(rollout(model, images)[b].numpy() - cells).max() < 1e-6


def dense_step(map):
    """The block's N x N operator: dense attention without padding, plus the identity, rows scaled to one."""
    operator = map.dense().mean(1).double() + torch.eye(map.grid.tokens, dtype=torch.float64)
    return operator / operator.sum(-1, keepdim=True)


def dense_merging(fine: Grid, coarse: Grid):
    """Average, for each cell of a 2 x 2 merging, the one, two or four cells that exist."""
    merging = torch.zeros(coarse.h * coarse.w, fine.h * fine.w, dtype=torch.float64)
    for row in range(coarse.h):
        for column in range(coarse.w):
            inside = [
                y * fine.w + x
                for y in (2 * row, 2 * row + 1)
                for x in (2 * column, 2 * column + 1)
                if y < fine.h and x < fine.w
            ]
            merging[row * coarse.w + column, inside] = 1 / len(inside)
    entering = torch.zeros(coarse.prefix - fine.prefix, fine.tokens, dtype=torch.float64)
    return torch.cat([entering, merging])


@pytest.mark.parametrize("kind", ["swin", "swin timm", "swin masked", "nat", "dinat", "pvt", "pvt v2"])
@pytest.mark.parametrize("size", [(48, 36), (32, 32), (20, 44)])
def test_hierarchical_rollout_is_the_product_of_dense_matrices(build, kind, size):
    maps, _ = captured(build(kind), torch.randn(2, 3, *size))
    product = torch.eye(maps[0].grid.tokens, dtype=torch.float64).expand(2, -1, -1)
    grid = maps[0].grid
    for map in maps:
        if map.grid != grid:
            product, grid = dense_merging(grid, map.grid) @ product, map.grid
        product = dense_step(map) @ product
    assert grid != maps[0].grid
    assert (compose(maps) - product).abs().max() < 1e-6


def test_rows_sum_to_one(attending, images):
    maps, _ = captured(attending, images)
    shares = compose(maps).sum(-1)
    if maps[0].grid.prefix == maps[-1].grid.prefix:
        assert (shares - 1).abs().max() < 1e-5
    else:  # the rest is the share of prefix tokens, which enter on the way
        assert shares.max() < 1 and shares.min() > 0
    assert compose(maps).min() >= 0


def test_rollout_starts_at_the_tokens_of_the_head(build, images):
    for kind, expected in {"vit": [0], "deit": [0, 1], "swin": range(6 * 5)}.items():
        model = build(kind)
        _, features = captured(model, images)
        read = reading(model, features)
        assert read.nonzero()[:, 1].unique().tolist() == list(expected)
        assert torch.allclose(read.sum(-1), torch.ones(2))
    assert torch.allclose(read, torch.full_like(read, 1 / 30))


def test_the_rollout_of_a_query_is_its_row(attending, images):
    maps, features = captured(attending, images)
    query = (features.grid.h - 1, 1)
    row = compose(maps)[:, maps[-1].place.token(query)]
    assert torch.allclose(rollout(attending, images, query), maps[0].over_cells(row), atol=1e-6)


def test_a_backbone_without_a_head_rolls_out_too(build, images):
    model = build("vit")
    assert torch.allclose(rollout(model.backbone, images), rollout(model, images), atol=1e-6)
    mean = compose(captured(build("swin"), images)[0]).mean(1)
    assert torch.allclose(rollout(build("swin").backbone, images).flatten(1), mean, atol=1e-6)


def test_merging_and_its_transpose_are_adjoint():
    fine, coarse = Grid(3, 5), Grid(2, 3)
    rows = torch.rand(2, 4, coarse.tokens)
    back = unmerge(rows, fine, coarse)
    assert torch.allclose(back.double(), rows.double() @ dense_merging(fine, coarse))
    assert torch.equal(owner_of_cells(fine, coarse), dense_merging(fine, coarse).argmax(0))
    with pytest.raises(VitrailError, match="prefix"):
        unmerge(rows, Grid(3, 5, prefix=1), coarse)


def test_a_model_keeps_its_mode_and_its_gradients(attending, images):
    attending.train()
    rollout(attending, images)
    assert all(module.training for module in attending.modules())
    assert all(parameter.grad is None for parameter in attending.parameters())


def test_a_model_without_attention_cannot_roll_out(without_attention):
    with pytest.raises(VitrailError, match="no softmax attention"):
        rollout(without_attention, torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize("shape", [(3, 64, 64), (0, 3, 64, 64)])
def test_other_shapes_than_image_batches_are_refused(build, shape):
    with pytest.raises(VitrailError, match="Need a batch"):
        rollout(build("vit"), torch.zeros(shape))


def test_a_late_class_token_reads_through_the_blocks_without_it(build):
    model, images = build("cait"), torch.randn(2, 3, 48, 36)
    got = rollout(model, images)
    with torch.no_grad(), attention_maps(model) as maps:
        model(images)
    row = torch.zeros(2, 1, 1 + 9)
    row[..., 0] = 1
    for map in reversed(list(maps)[2:]):  # class attention: the class token alone draws from others
        whole = torch.eye(10).expand(2, -1, -1).clone()
        whole[:, 0] += map.probabilities.mean(2)[:, 0, 0]
        row = row @ (whole / whole.sum(-1, keepdim=True))
    row = row[..., 1:]
    for map in reversed(list(maps)[:2]):
        whole = torch.eye(9) + map.probabilities.mean(2)[:, 0]
        row = row @ (whole / whole.sum(-1, keepdim=True))
    torch.testing.assert_close(got.flatten(1), row[:, 0])
