"""Checkpoints outside the catalogue are named, and none of the catalogue is taken for one."""

import pytest
import torch
from small_peers import PAIRS

from vitrail.errors import DataError
from vitrail.weights.detect import detect
from vitrail.weights.foreign import foreign_name
from vitrail.weights.from_checkpoint import from_checkpoint

TIMM = {
    "beit_base_patch16_224": "BEiT-B/16",
    "beitv2_large_patch16_224": "BEiT-L/16",
    "vit_small_patch16_dinov3": "DINOv3-S/16",
    "eva_giant_patch14_224": "EVA-g/14",
    "deit3_small_patch16_224": "DeiT III-S/16",
    "vit_base_patch32_clip_224": "CLIP ViT-B/32",
    "samvit_base_patch16": "SAM image encoder-B/16",
    "hiera_tiny_224": "Hiera",
    "pit_ti_224": "PiT",
    "volo_d1_224": "VOLO",
    "maxvit_tiny_tf_224": "MaxViT",
    "coatnet_0_rw_224": "CoAtNet",
    "levit_128": "LeViT",
    "mobilevit_s": "MobileViT",
    "edgenext_small": "EdgeNeXt",
    "efficientformer_l1": "EfficientFormer",
    "davit_tiny": "DaViT",
    "mvitv2_tiny": "MViTv2",
    "focalnet_tiny_srf": "FocalNet",
    "gcvit_tiny": "GCViT",
    "fastvit_t8": "FastViT",
    "visformer_tiny": "Visformer",
    "gmlp_s16_224": "gMLP",
    "resmlp_12_224": "ResMLP",
    "convmixer_768_32": "ConvMixer",
    "sequencer2d_s": "Sequencer",
    "efficientnet_b0": "EfficientNet",
    "ghostnet_100": "GhostNet",
    "mobilenetv3_large_100": "MobileNetV3",
    "mobilenetv2_100": "MobileNetV2 or MnasNet",
    "regnety_016": "RegNet",
    "repvgg_a0": "RepVGG",
    "nfnet_f0": "NFNet",
    "densenet121": "DenseNet",
    "vgg11": "VGG",
    "inception_v3": "Inception v3",
    "hrnet_w18": "HRNet",
    "res2net50_26w_4s": "Res2Net",
    "resnest50d": "ResNeSt",
    "seresnet50": "SE-ResNet-50",
    "resnext50_32x4d": "ResNeXt-50",
    "wide_resnet50_2": "Wide ResNet-50",
    "resnet18": "ResNet-18 (of basic blocks)",
}


OFTEN = ("beit_base_patch16_224", "eva_giant_patch14_224", "deit3_small_patch16_224", "vgg11", "resnet18", "pit_ti_224")
MODELS = [
    pytest.param(model, name, id=model, marks=() if model in OFTEN else pytest.mark.slow)
    for model, name in TIMM.items()
]


@pytest.mark.parametrize(("model", "name"), MODELS)
def test_a_foreign_checkpoint_is_named(model, name):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        tensors = timm.create_model(model).state_dict()
    with pytest.raises(DataError) as error:
        detect(tensors, "model.safetensors")
    assert str(error.value).startswith(f"model.safetensors is a checkpoint of {name}, an architecture that is not in")


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_own_checkpoints_are_not_foreign(pair):
    assert foreign_name({key: tuple(value.shape) for key, value in pair.make_peer().state_dict().items()}) is None


def test_huggingface_names_it_too():
    transformers = pytest.importorskip("transformers")
    config = transformers.BeitConfig(hidden_size=192, num_hidden_layers=1, num_attention_heads=3, image_size=32)
    with pytest.raises(DataError, match=r"state dict is a checkpoint of BEiT-Ti/16"):
        from_checkpoint(transformers.BeitForImageClassification(config).state_dict())
