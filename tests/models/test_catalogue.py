"""Names, fields and numbers: accepted and refused values of the catalogue."""

import dataclasses

import pytest

from vitrail.errors import VitrailError
from vitrail.models import FAMILIES, catalogue, create_model, family_of, find, list_models, make_config


def test_every_family_is_a_frozen_config_a_builder_and_variants():
    for family in FAMILIES:
        modules = {find(name) for name in list_models() if catalogue()[name] == family == family_of(name)}
        assert len(modules) == 1
        for config in modules.pop().VARIANTS.values():
            with pytest.raises(dataclasses.FrozenInstanceError):
                config.num_classes = 5
            assert hash(config) == hash(dataclasses.replace(config))


def test_names_are_timms():
    timm = pytest.importorskip("timm")
    images = set(list_models(task="classify"))
    families = ("nat", "dinat", "dinat_s", "cpvt", "deepvit", "cct", "pvt", "igpt", "vmoe", "perceiver")
    families += ("sasa", "nonlocal_resnet", "vt_resnet", "retnet_image", "perceiver_iterative")
    prefixes = ("identityformer", "randformer", "botnet50_s1")
    authors = {name for name in images if family_of(name) in families or name.startswith(prefixes)}
    assert images - authors <= set(timm.list_models())
    assert not authors & set(timm.list_models())  # where timm has a model, its name is ours


def test_patterns():
    assert list_models("deit*distilled*384") == ["deit_base_distilled_patch16_384"]
    assert list_models("nothing*") == []
    assert len(list_models()) == len(set(list_models())) == len(catalogue())


def test_the_protocol_is_part_of_a_variant():
    protocols = {name: make_config(name).preprocess for name in list_models(task="classify")}
    assert (protocols["deit_base_patch16_384"].size, protocols["deit_base_patch16_384"].crop) == (384, 1.0)
    assert (protocols["poolformer_s36"].crop, protocols["poolformer_m36"].crop) == (0.9, 0.95)
    assert protocols["resnetv2_50x1_bit"].interpolation == "bilinear"
    assert protocols["vit_base_patch16_224"].mean == (0.5, 0.5, 0.5) != protocols["deit_base_patch16_224"].mean


def test_protocols_are_timms_where_timm_has_the_same_weights():
    timm = pytest.importorskip("timm")
    from vitrail.models.published import PUBLISHED

    for name, published in PUBLISHED.items():
        if published.weights:
            theirs = timm.get_pretrained_cfg(f"{name}.{published.weights}")
            ours = make_config(name).preprocess
            want = (theirs.input_size[1], theirs.crop_pct, theirs.interpolation, theirs.mean, theirs.std)
            assert (ours.size, ours.crop, ours.interpolation, ours.mean, ours.std) == want, name


def test_a_model_has_its_name_and_config():
    model = create_model("vit_tiny_patch16_224", depth=1, num_classes=4, image_size=64)
    assert model.variant == "vit_tiny_patch16_224"
    assert (model.config.depth, model.config.num_classes, model.preprocess.size) == (1, 4, 64)
    assert model.preprocess == model.config.preprocess
    assert create_model("swin_tiny_patch4_window7_224", depths=[1, 1, 1, 1]).config.depths == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("vit_tini_patch16_224", {}, "Unknown model 'vit_tini_patch16_224'. Did you mean: vit_tiny_patch16_224"),
        ("vit_tiny_patch16_224", {"num_clases": 3}, "Did you mean: num_classes"),
        ("swin_tiny_patch4_window7_224", {"edge": "oficial"}, "Unknown edge 'oficial'. Did you mean: official"),
        ("poolformer_s12", {"pooling": "tim"}, "Unknown pooling 'tim'. Did you mean: timm"),
        ("vit_tiny_patch16_224", {"num_heads": 5}, "5 heads cannot share 192 channels evenly"),
        ("vit_tiny_patch16_224", {"drop_path": 1.0}, "drop path rate must be at least 0 and below 1, got 1.0"),
        ("vit_tiny_patch16_224", {"image_size": 0}, "image_size needs a whole number from 1 up, got 0. Published: 224"),
        ("vit_tiny_patch16_224", {"patch_size": 2.5}, "patch_size needs a whole number from 1 up, got 2.5"),
        ("vit_tiny_patch16_224", {"num_classes": -1}, "num_classes needs a whole number from 0 up"),
        ("swin_tiny_patch4_window7_224", {"depths": (2, 0, 6, 2)}, "depths needs whole numbers from 1 up"),
        ("swin_tiny_patch4_window7_224", {"depths": 2}, "depths needs whole numbers from 1 up, got 2"),
        ("swin_tiny_patch4_window7_224", {"depths": (2, 2)}, "Cannot build swin_tiny_patch4_window7_224"),
        ("nat_mini", {"kernel_size": 6}, "odd kernel size from 3 up, got 6"),
        ("dinat_mini", {"dilations": (8, 4, 0, 1)}, "dilations needs whole numbers from 1 up"),
        ("dinat_mini", {"depths": (2, 2)}, "Cannot build dinat_mini"),
        ("resnetv2_50x1_bit", {"dim": 20}, "Cannot build resnetv2_50x1_bit"),
    ],
)
def test_invalid_configs_are_refused_briefly(name, overrides, message):
    with pytest.raises(VitrailError) as caught:
        create_model(name, **overrides)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 6


def test_valid_boundary_values_are_accepted():
    assert create_model("vit_tiny_patch16_224", depth=1, drop_path=0, num_classes=0).config.drop_path == 0
    assert find("vit_tiny_r_s16_p8_224").VARIANTS["vit_tiny_r_s16_p8_224"].depths == ()
