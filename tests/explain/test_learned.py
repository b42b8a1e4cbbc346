"""Positions, biases and filters: what the images of a model's tables must agree with."""

import pytest
import torch
from sklearn.decomposition import PCA

from vitrail.errors import VitrailError
from vitrail.explain.filters import patch_filters, principal_filters
from vitrail.explain.positions import position_similarity, relative_bias
from vitrail.explain.weight_figures import bias_figure, filters_figure, positions_figure
from vitrail.grid import Grid
from vitrail.parts.positions import LearnedPosition, RelativePositionBias


@pytest.mark.parametrize("kind", ["vit", "deit"])
def test_similarity_is_the_cosine_of_each_pair_of_cells(build, kind):
    model = build(kind)
    found = position_similarity(model)
    table = next(module for module in model.modules() if isinstance(module, LearnedPosition))
    vectors = table.table.detach()[0, table.grid.prefix :]
    for i in range(16):
        for j in range(16):
            cosine = torch.nn.functional.cosine_similarity(vectors[i], vectors[j], dim=0)
            assert found[i // 4, i % 4, j // 4, j % 4] == pytest.approx(float(cosine), abs=1e-5)
    assert found.shape == (4, 4, 4, 4) and not found.requires_grad


def test_the_bias_figure_has_each_bias_at_its_key(build):
    model = build("swin")
    images = relative_bias(model)
    modules = {name: module for name, module in model.named_modules() if isinstance(module, RelativePositionBias)}
    assert images.keys() == modules.keys() and len(images) == 4
    for name, image in images.items():
        bias = modules[name].bias(torch.zeros(1, len(image), 16, 4), Grid(4, 4))
        assert image.shape[1:] == (7, 7)
        for query in range(16):
            for key in range(16):
                dy, dx = key // 4 - query // 4, key % 4 - query % 4
                assert torch.equal(image[:, 3 + dy, 3 + dx], bias[:, query, key])


def test_models_without_tables_name_other_methods(build):
    with pytest.raises(VitrailError, match="relative_bias"):
        position_similarity(build("swin"))
    with pytest.raises(VitrailError, match="position_similarity"):
        relative_bias(build("vit"))


@pytest.mark.parametrize("kind", ["vit", "swin", "poolformer", "mixer", "bit"])
def test_components_are_those_of_scikit_learn(build, kind):
    model = build(kind)
    weight = patch_filters(model)
    assert weight.shape[1] == 3
    found = principal_filters(model, count=5).flatten(1)
    peer = PCA(n_components=5, svd_solver="full").fit(weight.flatten(1).double().numpy())
    alike = (found.double() @ torch.from_numpy(peer.components_).T).abs()
    assert torch.allclose(alike, torch.eye(5, dtype=torch.float64), atol=1e-3)


def test_there_are_never_more_components_than_filters(build):
    assert principal_filters(build("swin"), count=28).shape == (8, 3, 4, 4)


def test_portraits_are_drawn_for_grey_models_and_large_grids(build):
    assert positions_figure(build("vit"), most=2).image().height > 100
    assert bias_figure(build("swin")).image().width > 300
    grey = build("vit")
    grey.backbone.embedding.patches.proj = torch.nn.Conv2d(1, 24, 16, 16)
    image = filters_figure(grey).image()
    r, g, b = (channel.tobytes() for channel in image.crop((20, 60, 40, 80)).split())
    assert r == g == b
