"""DINOv2 and SigLIP image towers of Hugging Face: same weights, same pooled vector, from memory and from files."""

import json

import pytest
import torch

from vitrail.models import create_model
from vitrail.weights.from_checkpoint import from_checkpoint
from vitrail.weights.load import load_weights

transformers = pytest.importorskip("transformers")
SIZES = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3)
OURS = dict(dim=24, depth=2, num_heads=3)


def drawn(peer: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return peer.eval()


def dino(kind: str, size: int) -> torch.nn.Module:
    options = dict(**SIZES, image_size=size, patch_size=14)
    if kind == "plain":
        return drawn(transformers.Dinov2Model(transformers.Dinov2Config(**options)))
    config = transformers.Dinov2WithRegistersConfig(**options, use_swiglu_ffn=kind == "swiglu")
    return drawn(transformers.Dinov2WithRegistersModel(config))


def siglip(size: int) -> torch.nn.Module:
    config = transformers.SiglipVisionConfig(**SIZES, intermediate_size=96, image_size=size, patch_size=16)
    return drawn(transformers.SiglipVisionModel(config))


DINO = {
    "plain": ("vit_small_patch14_dinov2", OURS),
    "registers": ("vit_small_patch14_reg4_dinov2", OURS),
    "swiglu": ("vit_giant_patch14_reg4_dinov2", {**OURS, "mlp_ratio": 64 / 24}),
}


@torch.no_grad()
def close(ours, peer, size: int) -> bool:
    images = torch.randn(2, 3, size, size)
    want, got = peer(images).pooler_output, ours(images)
    return bool((got - want).abs().max() <= 1e-5 * want.abs().max())


@pytest.mark.parametrize("kind", DINO)
@pytest.mark.parametrize("size", [28, 42, 70])
def test_dinov2_in_memory(kind, size):
    peer, (name, numbers) = dino(kind, size), DINO[kind]
    ours = create_model(name, image_size=size, **numbers).eval()
    report = load_weights(ours, peer.state_dict())
    assert report.format == "transformers" and not report.adapted and not report.kept
    assert close(ours, peer, size)


@pytest.mark.parametrize("kind", DINO)
def test_dinov2_from_a_folder_with_its_own_sizes(kind, tmp_path):
    peer = dino(kind, 42)
    peer.save_pretrained(tmp_path)
    found = from_checkpoint(tmp_path)
    assert found.format == "huggingface" and found.model.variant.endswith("dinov2")
    assert (found.model.config.num_heads, found.model.config.preprocess.size) == (3, 42)
    assert close(found.model.eval(), peer, 42)


@pytest.mark.parametrize("size", [32, 48, 80])
def test_siglip_in_memory(size):
    peer = siglip(size)
    ours = create_model("vit_base_patch16_siglip_224", image_size=size, gelu="tanh", **OURS).eval()
    report = load_weights(ours, peer.state_dict())
    assert report.format == "huggingface" and not report.adapted and not report.kept
    assert close(ours, peer, size)


def test_siglip_from_the_folder_of_both_towers(tmp_path):
    vision = dict(**SIZES, intermediate_size=96, image_size=48, patch_size=16)
    text = dict(**SIZES, intermediate_size=96, bos_token_id=1, eos_token_id=2)
    peer = drawn(transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=text)))
    peer.save_pretrained(tmp_path)
    found = from_checkpoint(tmp_path)
    assert found.model.config.gelu == "tanh" and found.model.config.num_heads == 3
    assert close(found.model.eval(), peer.vision_model, 48)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "siglip"
