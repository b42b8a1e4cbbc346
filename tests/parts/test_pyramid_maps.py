"""Maps that decoders read from backbones of every kind."""

import pytest
import torch
from torch import nn

from vitrail.errors import VitrailError
from vitrail.models import create_model
from vitrail.parts.decoders.pyramid import NoLevelNorm, PyramidMaps, SimplePyramidMaps, halve, pyramid_maps

SWIN = {"dim": 8, "depths": (1, 1, 1), "num_heads": (1, 2, 4)}
VIT = {"depth": 1, "dim": 24, "num_heads": 3}


def test_levels_are_normalised_stage_outputs_and_the_last_norm_is_dropped():
    backbone = create_model("swin_tiny_patch4_window7_224", **SWIN).backbone
    maps = pyramid_maps(backbone)
    assert isinstance(maps, PyramidMaps) and isinstance(backbone.norm, nn.Identity)
    assert (maps.channels, maps.strides) == ((8, 16, 32), (4, 8, 16))
    features = backbone(torch.randn(2, 3, 50, 70))
    for got, cells in zip(maps(features), features.pyramid, strict=True):
        want = (cells - cells.mean(-1, keepdim=True)) / (cells.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(got, want.permute(0, 3, 1, 2), atol=1e-5, rtol=1e-4)


def test_norms_can_be_left_out():
    backbone = create_model("swin_tiny_patch4_window7_224", **SWIN).backbone
    maps = pyramid_maps(backbone, norm=NoLevelNorm)
    features = backbone(torch.randn(1, 3, 32, 32))
    assert torch.equal(maps(features)[1], features.pyramid[1].permute(0, 3, 1, 2)) and not [*maps.parameters()]


@pytest.mark.parametrize("size", [(64, 64), (33, 80), (1, 1)])
def test_a_plain_vit_gets_four_scales(size):
    backbone = create_model("vit_tiny_patch16_224", **VIT).backbone
    maps = pyramid_maps(backbone)
    assert isinstance(maps, SimplePyramidMaps) and isinstance(backbone.norm, nn.LayerNorm)
    assert (maps.channels, maps.strides) == ((6, 12, 24, 24), (4, 8, 16, 32))
    h, w = (-(-side // 16) for side in size)
    got = [tuple(each.shape[2:]) for each in maps(backbone(torch.randn(1, 3, *size)))]
    assert got == [(4 * h, 4 * w), (2 * h, 2 * w), (h, w), (-(-h // 2), -(-w // 2))]


def test_stages_of_one_scale_are_one_level():
    backbone = create_model("xcit_nano_12_p16_224", depth=1, dim=24, num_heads=3).backbone
    assert pyramid_maps(backbone).strides == (4, 8, 16, 32)


def test_halving_keeps_an_odd_last_row():
    cells = torch.arange(9.0).reshape(1, 3, 3, 1)
    assert halve(cells).flatten().tolist() == [4, 5, 7, 8]


def test_latents_have_no_places():
    with pytest.raises(VitrailError, match="no places in the image"):
        pyramid_maps(create_model("perceiver_io_learned", depth=1, dim=16, num_heads=2, latents=6).backbone)


def test_probing_leaves_the_backbone_as_it_is():
    backbone = create_model("vit_tiny_patch16_224", **VIT).backbone
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    pyramid_maps(backbone)
    assert backbone.training and all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    with torch.device("meta"):
        pyramid_maps(create_model("vit_tiny_patch16_224", **VIT).backbone)
