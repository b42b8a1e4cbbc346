"""Explanations of segmenters: a pixel, or the whole image."""

import pytest
import torch
from PIL import Image

import vitrail
from vitrail.cli import main
from vitrail.errors import VitrailError
from vitrail.explain.rollout import rollout
from vitrail.explain.saliency import class_scores, saliency
from vitrail.explain.token_query import Pixel
from vitrail.models import create_model


def small(backbone: str, **numbers):
    model = create_model(
        "fpn_segmenter", backbone=backbone, backbone_config=numbers, channels=8, num_classes=3, image_size=64
    ).eval()
    with torch.no_grad():  # a fresh classifier is almost zero
        model.head.main.classifier.weight.normal_()
    model.labels = ("a", "b", "c")
    return model


def test_a_pixel_is_moved_by_its_surroundings():
    model, images = small("convnext_atto", dims=(8, 16), depths=(1, 1)), torch.randn(1, 3, 64, 64)
    near = saliency(model, images, samples=1, noise=0.0, pixel=Pixel(8, 8))
    assert near.shape == (1, 64, 64)
    assert near[0, :24, :24].sum() > 5 * near[0, 40:, 40:].sum()
    with pytest.raises(VitrailError, match="no pixel 64, 0: the model saw 64 rows"):
        saliency(model, images, pixel=Pixel(64, 0))


def test_scores_of_an_image_are_means_over_pixels():
    logits = torch.randn(2, 3, 4, 5)
    assert torch.equal(class_scores(logits, Pixel(1, 2)), logits[:, :, 1, 2])
    torch.testing.assert_close(class_scores(logits), logits.flatten(2).mean(2))
    assert class_scores(logits[..., 0, 0]) is not None and class_scores(logits[:, :, 0, 0]).shape == (2, 3)


def test_rollout_reads_all_cells():
    model = small("vit_tiny_patch16_224", depth=2, dim=24, num_heads=2)
    shares = rollout(model, torch.randn(1, 3, 64, 64))
    assert shares.shape == (1, 4, 4) and 0.5 < shares.sum() <= 1.0001


def test_the_command_draws_every_method(tmp_path, capsys):
    vitrail.save_model(small("vit_tiny_patch16_224", depth=1, dim=24, num_heads=2), tmp_path / "model")
    Image.new("RGB", (80, 64), "red").save(tmp_path / "a.png")
    for words in ([], ["--pixel", "20,30"], ["--pixel", "20,30", "--method", "saliency"]):
        assert (
            main(["explain", str(tmp_path / "model"), str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), *words])
            == 0
        )
        assert "The model says" in capsys.readouterr().out
