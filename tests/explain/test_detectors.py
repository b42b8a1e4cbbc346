"""Explanations of detectors: the pixels that move the score of a box."""

import pytest
import torch
from PIL import Image

from vitrail.cli import main
from vitrail.errors import VitrailError
from vitrail.explain.detector_report import box_logits, box_saliency, detector_album
from vitrail.explain.token_query import Pixel
from vitrail.models import create_model
from vitrail.weights.folder import save_model

NAMES = ("cell", "plate")


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = {"backbone": "vit_tiny_patch16_224", "channels": 16, "hidden": 16, "image_size": 64, "num_classes": 2}
    model = create_model(
        "faster_rcnn", **sizes, backbone_config={"dim": 16, "depth": 1, "num_heads": 2, "patch_size": 8}
    ).eval()
    with torch.no_grad():  # a fresh head has no preference
        model.head.roi_heads.box_predictor.cls_score.weight.normal_()
    model.labels = NAMES
    return model


def test_the_gradient_is_that_of_finite_differences(model):
    model, images, box = model.double(), torch.rand(1, 3, 64, 64, dtype=torch.float64), torch.tensor([8.0, 8, 40, 40])
    heat = box_saliency(model, images, box, 1, samples=1, noise=0.0)
    row, column = divmod(int(heat[0].argmax()), 64)
    steps = torch.zeros(3, 3, 64, 64, dtype=torch.float64)
    steps[range(3), range(3), row, column] = 1e-6
    with torch.no_grad():
        moved = [box_logits(model, images + sign * steps[c : c + 1], box)[0, 2] for c in range(3) for sign in (1, -1)]
    slopes = (torch.stack(moved[0::2]) - torch.stack(moved[1::2])).abs() / 2e-6
    assert float(slopes.max()) == pytest.approx(float(heat.max()), rel=1e-4)


def test_the_box_around_a_pixel_is_explained(model):
    image = Image.effect_noise((60, 45), 90).convert("RGB")
    [best] = detector_album(model, [("a.png", image)], NAMES)
    assert best.text.startswith("The model finds ") and best.figures["Boxes"].image().width > 300
    with pytest.raises(VitrailError, match="no box covers pixel 999,999"):
        list(detector_album(model, [("a.png", image)], NAMES, Pixel(999, 999)))


def test_the_verb(model, tmp_path, capsys):
    save_model(model, tmp_path / "model")
    Image.effect_noise((60, 45), 90).convert("RGB").save(tmp_path / "a.png")
    words = ["explain", str(tmp_path / "model"), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert (tmp_path / "out" / "a-boxes.png").is_file() and (tmp_path / "out" / "index.html").is_file()
    assert main([*words, "--method", "rollout"]) == 2
    assert "--pixel alone" in capsys.readouterr().err
