"""A folder written for transformers is one that transformers loads: same outputs, names, preprocessing."""

import json
import random

import pytest
import torch
from PIL import Image
from small_peers import PAIRS, difference, logits
from transformers import AutoImageProcessor, AutoModelForImageClassification

from vitrail.cli import main
from vitrail.data.transform import EvalTransform
from vitrail.errors import VitrailError
from vitrail.models import create_model, make_config
from vitrail.preprocess import Preprocess, to_processor
from vitrail.weights.convert import convert
from vitrail.weights.folder import load_model, save_model

LABELS = ("ant", "bee", "cat", "dog", "emu")
MODELS = {name.split("-")[0]: pair for name, pair in PAIRS.items() if pair.format == "huggingface"}
CASES = {
    **{name: (pair.variant, {**pair.overrides, "image_size": pair.size}) for name, pair in MODELS.items()},
    "deit-plain": ("deit_tiny_patch16_224", {**MODELS["deit"].overrides, "image_size": 32, "mlp_ratio": 2.0}),
    "vit-grey": ("vit_tiny_patch16_224", {**MODELS["vit"].overrides, "image_size": 48, "in_channels": 1}),
    "swin-window": ("swin_tiny_patch4_window7_224", {**MODELS["swin"].overrides, "image_size": 32, "window_size": 4}),
    "poolformer-three": ("poolformer_s12", dict(dims=(8, 16, 24), depths=(1, 1, 2), num_classes=5, image_size=64)),
    "bit-wide": ("resnetv2_50x3_bit", dict(depths=(1, 1, 1, 1), num_classes=5, image_size=64)),
}


def drawn(variant: str, overrides: dict):
    """Build a model in which nothing is zero or one, so that nothing agrees because of that."""
    model = create_model(variant, **overrides).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.mark.parametrize(("variant", "overrides"), CASES.values(), ids=CASES)
def test_transformers_gives_equal_logits(variant, overrides, tmp_path):
    ours = drawn(variant, overrides)
    save_model(ours, tmp_path / "ours", labels=LABELS)
    done = convert(tmp_path / "ours", "huggingface", tmp_path / "theirs")
    assert done.model == variant and {**done.overrides, **overrides} == overrides
    assert AutoImageProcessor.from_pretrained(tmp_path / "theirs").crop_size["height"] == overrides["image_size"]
    theirs, told = AutoModelForImageClassification.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not any(told.values()), told
    images = torch.randn(2, overrides.get("in_channels", 3), overrides["image_size"], overrides["image_size"])
    assert difference(logits(theirs, images), logits(ours, images)) <= 1e-5
    assert tuple(theirs.config.id2label.values()) == LABELS and theirs.config.label2id["dog"] == 3


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "poolformer_s12", "resnetv2_50x1_bit", "grey"])
def test_the_image_processor_gives_equal_pixels(name, tmp_path):
    """Pillow and torchvision resize within two steps of a byte of each other."""
    grey = Preprocess(48, mean=(0.4,), std=(0.3,))
    preprocess = grey if name == "grey" else make_config(name).preprocess
    colours = Image.frombytes("RGB", (9, 7), random.Random(0).randbytes(189)).resize(
        (500, 375), Image.Resampling.BICUBIC
    )
    image = colours.convert("L") if preprocess.channels == 1 else colours
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(to_processor(preprocess)))
    got = AutoImageProcessor.from_pretrained(tmp_path)(image, return_tensors="pt")["pixel_values"][0]
    want = EvalTransform(preprocess)(image)
    assert got.shape == want.shape and (got - want).abs().max() * min(preprocess.std) * 255 < 2.1


def test_a_foreign_file_becomes_a_folder_with_numbered_classes(tmp_path):
    model = drawn("vit_tiny_patch16_224", dict(num_classes=3, image_size=64))
    torch.save(model.state_dict(), tmp_path / "ours.pth")
    assert main(["convert", str(tmp_path / "ours.pth"), "--to", "huggingface", "--out", str(tmp_path / "theirs")]) == 0
    assert json.loads((tmp_path / "theirs" / "config.json").read_bytes())["id2label"]["2"] == "LABEL_2"
    again = convert(tmp_path / "theirs", "vitrail", tmp_path / "back", model="vit_tiny_patch16_224")
    assert again.came_as == "huggingface"
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(logits(load_model(tmp_path / "back"), images), logits(model, images))


def test_an_earlier_folder_is_replaced_and_any_other_is_left_alone(tmp_path):
    save_model(drawn(*CASES["vit"]), tmp_path / "ours", labels=LABELS)
    for _ in range(2):
        convert(tmp_path / "ours", "huggingface", tmp_path / "theirs")
    (tmp_path / "theirs" / "notes.txt").write_text("mine")
    with pytest.raises(VitrailError, match="holds other files"):
        convert(tmp_path / "ours", "huggingface", tmp_path / "theirs")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(VitrailError, match="is a file"):
        convert(tmp_path / "ours", "huggingface", tmp_path / "file")
    assert (tmp_path / "theirs" / "notes.txt").read_text() == (tmp_path / "file").read_text() == "mine"


def test_models_that_transformers_cannot_compute_are_refused(tmp_path):
    save_model(drawn("poolformer_s12", {**MODELS["poolformer"].overrides, "pooling": "timm"}), tmp_path / "pool")
    with pytest.raises(VitrailError, match="normalises before the last pooling"):
        convert(tmp_path / "pool", "huggingface", tmp_path / "out")
    save_model(drawn("mixer_s32_224", PAIRS["mixer-timm"].overrides), tmp_path / "mixer")
    with pytest.raises(VitrailError, match="huggingface has no such mixer"):
        convert(tmp_path / "mixer", "huggingface", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_trained_model_of_a_custom_size_converts(tmp_path):
    """Its config decides; shapes alone would not."""
    model = drawn(
        "vit_tiny_patch16_224", dict(dim=24, depth=1, num_heads=2, patch_size=8, num_classes=5, image_size=24)
    )
    save_model(model, tmp_path / "ours", labels=LABELS)
    convert(tmp_path / "ours", "timm", tmp_path / "timm.pth")
    done = convert(tmp_path / "ours", "vitrail", tmp_path / "copy")
    assert done.overrides == dict(dim=24, depth=1, num_heads=2, patch_size=8, num_classes=5, image_size=24)
    assert load_model(tmp_path / "copy").labels == LABELS
    assert torch.load(tmp_path / "timm.pth", weights_only=True)["pos_embed"].shape == (1, 10, 24)
