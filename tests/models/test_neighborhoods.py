"""The numbers of NAT, DiNAT and DiNAT_s that parameters and multiply-adds do not show."""

import pytest
import torch

from vitrail.models import create_model, family_of, list_models, make_config
from vitrail.models.published import PUBLISHED
from vitrail.parts.regularisation import LayerScale
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention

NEIGHBORHOODS = [name for name in list_models() if family_of(name) in ("nat", "dinat", "dinat_s")]


def blocks(name: str) -> list[tuple[int, int]]:
    """Return kernel size and dilation of each block."""
    with torch.device("meta"):
        model = create_model(name)
    leaves = [module.attend for module in model.modules() if isinstance(module, NeighborhoodAttention)]
    return [(leaf.kernel_size, leaf.dilation) for leaf in leaves]


@pytest.mark.parametrize(
    ("name", "dilations"),
    [
        ("nat_mini", [1] * 18),
        ("nat_base", [1] * 30),
        ("dinat_mini", [1, 8, 1, 1, 4, 1, 4, *[1, 2] * 3, *[1] * 5]),
        ("dinat_large", [1, 8, 1, 1, 4, 1, 4, *[1, 2] * 9, *[1] * 5]),
        ("dinat_large_384", [1, 13, 1, 1, 6, 1, 6, *[1, 3] * 9, *[1] * 5]),
        ("dinat_s_tiny", [1, 8, 1, 4, *[1, 2] * 3, 1, 1]),
        ("dinat_s_large_384", [1, 13, 1, 6, *[1, 3] * 9, 1, 1]),
    ],
)
def test_dilations_are_the_authors(name, dilations):
    assert blocks(name) == [(7, dilation) for dilation in dilations]


def test_one_variant_has_a_wider_kernel():
    assert {name: {size for size, _ in blocks(name)} for name in NEIGHBORHOODS} == {
        name: {11} if name == "dinat_large_384_11x11" else {7} for name in NEIGHBORHOODS
    }


def test_no_published_neighborhood_is_padded_at_its_own_size():
    for name in NEIGHBORHOODS:
        cells = make_config(name).preprocess.size // 4
        dilations = getattr(make_config(name), "dilations", (1, 1, 1, 1))
        for stage, dilation in enumerate(dilations):
            assert make_config(name).kernel_size * dilation <= cells // 2**stage, name


def test_layer_scale_is_where_the_authors_have_it():
    with torch.device("meta"):
        models = {name: create_model(name) for name in NEIGHBORHOODS}
    scaled = [name for name, model in models.items() if any(isinstance(m, LayerScale) for m in model.modules())]
    assert scaled == ["nat_small", "nat_base", "dinat_base"]


def test_a_classifier_of_imagenet_22k_has_its_classes():
    named = [name for name in NEIGHBORHOODS if make_config(name).num_classes == 21841]
    assert named == ["dinat_large_21k", "dinat_s_large_21k"]


# The tables of the two repositories, in millions and 10^9; theirs also counts norms, by a share of a hundredth.
@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [
        ("nat_mini", 20, 2.7),
        ("nat_tiny", 28, 4.3),
        ("nat_small", 51, 7.8),
        ("nat_base", 90, 13.7),
        ("dinat_mini", 20, 2.7),
        ("dinat_tiny", 28, 4.3),
        ("dinat_small", 51, 7.8),
        ("dinat_base", 90, 13.7),
        ("dinat_large", 200, 30.6),
        ("dinat_large_384", 200, 89.7),
        ("dinat_large_384_11x11", 200, 92.4),
        ("dinat_s_tiny", 28, 4.5),
        ("dinat_s_small", 50, 8.7),
        ("dinat_s_base", 88, 15.4),
        ("dinat_s_large", 197, 34.5),
        ("dinat_s_large_384", 197, 101.5),
    ],
)
def test_our_ledger_is_the_authors_table(name, parameters, gmacs):
    assert PUBLISHED[name].parameters / 1e6 == pytest.approx(parameters, abs=1.2)
    assert PUBLISHED[name].gmacs == pytest.approx(gmacs, rel=0.01)
