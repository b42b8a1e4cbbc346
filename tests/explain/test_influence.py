"""Influence is the Jacobian: against autograd's own, against formulas, and against what cannot be reached."""

import pytest
import torch

import vitrail.explain.influence as influence_module
from vitrail.errors import VitrailError
from vitrail.explain.blocks import mixing_blocks
from vitrail.explain.influence import influence_maps, influence_rows
from vitrail.explain.saliency import receptive_field, saliency
from vitrail.explain.token_query import Pixel
from vitrail.grid import Grid

ALL = ["vit", "deit", "swin", "poolformer", "mixer", "bit"]


def noise(kind: str, batch: int = 1) -> torch.Tensor:
    side = {"vit": 48, "deit": 48, "mixer": 64, "bit": 8}.get(kind, 24)
    return torch.randn(batch, 3, side, side)


@pytest.mark.parametrize("kind", ALL)
def test_influence_is_the_norm_of_the_jacobian_of_the_block(build, kind):
    model, images = build(kind), noise(kind)
    blocks = mixing_blocks(model)
    [found] = influence_maps(model, images, blocks=[0], probes=None)
    heard = {}
    hook = blocks[0].module.register_forward_pre_hook(lambda _, args: heard.update(x=args[0], grid=args[1]))
    with torch.no_grad():
        model(images)
    hook.remove()
    jacobian = torch.autograd.functional.jacobian(lambda x: blocks[0].module(x, heard["grid"])[0], heard["x"])
    norms = jacobian[:, :, 0].square().sum((1, 3)).sqrt()  # (N, C, 1, N, C) -> (N, N)
    assert torch.allclose(found.norms[0], norms, rtol=1e-4, atol=1e-6 * float(norms.max()))
    assert torch.allclose(found.dense()[0, 0], norms / norms.sum(-1, keepdim=True), rtol=1e-3, atol=1e-6)
    assert torch.allclose(found.probabilities.sum(-1), torch.ones(()))


@pytest.mark.parametrize("kind", ["poolformer", "mixer"])
def test_one_probe_is_exact_where_channels_do_not_mix(build, kind):
    model, images = build(kind), noise(kind)
    one = influence_maps(model, images, blocks=[0], probes=1)[0].norms
    exact = influence_maps(model, images, blocks=[0], probes=None)[0].norms
    if kind == "poolformer":  # the same weight for every channel
        assert torch.allclose(one, exact, rtol=1e-5, atol=1e-6)
    else:  # a GELU's slope differs by channel, and one probe sums their squares all the same
        assert torch.allclose(one, exact, rtol=1e-4, atol=1e-8)


def test_pooling_has_equal_influence_from_all_neighbours(build):
    [found] = influence_maps(build("poolformer"), torch.randn(1, 3, 24, 24), blocks=[0], probes=1)
    image = found.row_map((2, 3))[0, 0]
    expected = torch.zeros(6, 6)
    expected[1:4, 2:5] = 1 / 16  # eight neighbours by 1/9 each, the cell itself by 1/9 - 1
    expected[2, 3] = 8 / 16
    assert torch.allclose(image, expected, atol=1e-6)


def test_rows_are_rows_of_the_whole_map(build):
    for kind in ("deit", "swin", "bit"):
        model, images = build(kind), noise(kind, batch=2)
        whole = influence_maps(model, images, probes=1)
        for query in (Pixel(5, 6), (0, 0)):
            rows = influence_rows(model, images, query, probes=1)
            for map, (place, row) in zip(whole, rows, strict=True):
                assert place.block.name == map.name
                assert torch.allclose(map.row(query)[:, 0], row, atol=1e-6)


def test_influence_is_deterministic_and_leaves_no_hooks(build):
    model = build("bit").train()
    images = noise("bit")
    first, second = (influence_maps(model, images, probes=2)[0].norms for _ in range(2))
    assert torch.equal(first, second)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_grid_too_large_names_an_alternative(build, monkeypatch):
    monkeypatch.setattr(influence_module, "LARGEST", 35)
    model, images = build("poolformer"), torch.randn(1, 3, 24, 24)
    with pytest.raises(VitrailError, match="influence_rows"):
        influence_maps(model, images)
    assert len(influence_maps(model, images, blocks=[-1])) == 1
    assert len(influence_rows(model, images)) == 3


def test_the_plain_gradient_is_the_plain_gradient(build):
    model, images = build("vit"), torch.randn(2, 3, 64, 64)
    x = images.clone().requires_grad_()
    scores = model(x)
    scores[[0, 1], [3, 1]].sum().backward()
    found = saliency(model, images, target=torch.tensor([3, 1]), samples=1, noise=0)
    assert torch.allclose(found, x.grad.abs().amax(1), rtol=1e-5, atol=1e-7)
    named = saliency(model, images, samples=1, noise=0)
    assert torch.equal(named, saliency(model, images, target=scores.argmax(1), samples=1, noise=0))


@pytest.mark.parametrize("kind", ALL)
def test_every_model_has_a_saliency_and_keeps_its_mode(build, kind):
    model = build(kind).train()
    images = noise(kind, batch=2)
    found = saliency(model, images, samples=2)
    assert found.shape == (2, *images.shape[-2:]) and found.min() >= 0 and found.amax((1, 2)).min() > 0
    assert torch.equal(found, saliency(model, images, samples=2))
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("target", [5, -1, torch.tensor([0, 7])])
def test_an_unknown_class_is_an_error(build, target):
    with pytest.raises(VitrailError, match="classes 0 to 4"):
        saliency(build("vit"), torch.randn(2, 3, 64, 64), target=target)


def test_a_receptive_field_ends_where_pixels_cannot_reach(build):
    """Two pooling-free stages: after one window block without shift, a cell knows its window and nothing else."""
    model = build("swin")
    del model.backbone.stages[0].blocks[1]
    field = receptive_field(model, torch.randn(1, 3, 48, 48), (5, 2), stage=0)[0]  # window rows 4..7, columns 0..3
    reached = torch.zeros(48, 48, dtype=torch.bool)
    reached[16:32, 0:16] = True
    assert torch.equal(field > 0, reached)


def test_a_receptive_field_is_the_norm_of_the_jacobian(build):
    model, images = build("poolformer"), torch.randn(1, 3, 16, 16)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: model.features(x).pyramid[0][0, 1, 2], images
    )  # (C, 1, 3, Y, X)
    exact = jacobian[:, 0].square().sum((0, 1)).sqrt()
    found = receptive_field(model, images, (1, 2), stage=0, probes=None)[0]
    assert torch.allclose(found, exact, rtol=1e-4, atol=1e-6)
    guessed = receptive_field(model, images, (1, 2), stage=0, probes=64)[0]
    assert (guessed - exact).abs().max() < 0.5 * exact.max()


def test_unknown_stages_and_cells_are_errors(build):
    model, images = build("poolformer"), torch.randn(1, 3, 16, 16)
    with pytest.raises(VitrailError, match="no stage 2"):
        receptive_field(model, images, stage=2)
    with pytest.raises(VitrailError, match="no cell in row 4"):
        receptive_field(model, images, (4, 0), stage=0)
    assert Grid(*model.features(images).pyramid[-1].shape[1:3]) == Grid(2, 2)
    assert receptive_field(model, images).shape == (1, 16, 16)
