"""Checkpoints and sizes of oblong images: refused by that name, from every source."""

import pytest
import timm
import torch
import transformers
from timm.models import save_for_hf

from vitrail.cli import main
from vitrail.errors import DataError, VitrailError
from vitrail.models import create_model
from vitrail.weights.from_checkpoint import from_checkpoint

SMALL = {"img_size": [32, 64], "patch_size": 8, "embed_dim": 48, "depth": 1, "num_heads": 3}


def test_a_folder_of_transformers(tmp_path):
    sizes = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 96}
    config = transformers.ViTConfig(**sizes, image_size=[32, 64], patch_size=8, num_labels=3)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"oblong images \(32 x 64\)"):
        from_checkpoint(tmp_path)


def test_a_folder_and_a_file_of_timm(tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **SMALL)
    save_for_hf(model, tmp_path / "folder", model_args=SMALL)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    for path, size in (("folder", "32 x 64"), ("w.pth", "a position table of 33 rows")):
        with pytest.raises(VitrailError, match=size):
            from_checkpoint(tmp_path / path)
    with pytest.raises(VitrailError, match="33 rows"):
        from_checkpoint(tmp_path / "w.pth", "vit_tiny_patch16_224")


def test_a_square_of_another_size_is_read(tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **{**SMALL, "img_size": 48})
    torch.save(model.state_dict(), tmp_path / "w.pth")
    assert from_checkpoint(tmp_path / "w.pth", "vit_tiny_patch16_224", num_heads=3).model.preprocess.size == 48


def test_image_size_takes_one_number(capsys, tmp_path):
    with pytest.raises(VitrailError, match="one number, the side of a square"):
        create_model("vit_tiny_patch16_224", image_size=(32, 64))
    words = ["train", "digits", "--model", "vit_tiny_patch16_224", "--out", str(tmp_path / "r")]
    assert main([*words, "--set", "image_size=32,64"]) == 2
    assert "the side of a square" in capsys.readouterr().err
