"""Heatmaps of the page: equal to rollout and Grad-CAM of the library, up to one level of 255."""

import pytest
import torch
from PIL import Image

from vitrail.data.transform import EvalTransform
from vitrail.errors import VitrailError
from vitrail.explain.gradcam import gradcam
from vitrail.explain.rollout import rollout
from vitrail.explain.served_heat import decode_heat, encode_image_heat, heat_kinds
from vitrail.models import create_model

IMAGE = Image.effect_noise((70, 50), 60).convert("RGB")


@pytest.fixture(scope="module")
def swin() -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "image_size": 64, "num_classes": 3}
    return create_model("swin_tiny_patch4_window7_224", **sizes).eval()


def test_rows_are_rollouts_of_the_prediction_and_of_each_token(swin: torch.nn.Module) -> None:
    """A hierarchical model: queries of the last grid, 8 x 8, cells of the first, 16 x 16."""
    answer = encode_image_heat(swin, IMAGE, "rollout")
    rows, images = decode_heat(answer), EvalTransform(swin.preprocess)(IMAGE)[None]  # type: ignore[attr-defined]
    assert answer["queries"] == {"grid": [8, 8], "prefix": 0, "cell": [8, 8]} and answer["cell"] == [4, 4]
    assert rows.shape == (65, 16, 16)
    for row, query in ((0, None), (1, 0), (30, 29), (64, 63)):
        wanted = rollout(swin, images, query)[0]
        assert (rows[row] - wanted).abs().max() <= wanted.max() / 255


def test_the_class_token_is_a_query() -> None:
    torch.manual_seed(0)
    model = create_model("vit_tiny_patch16_224", depth=2, dim=24, num_heads=3, image_size=32, num_classes=3).eval()
    rows = decode_heat(encode_image_heat(model, IMAGE, "rollout"))
    assert torch.allclose(rows[0], rows[1], atol=float(rows[0].max()) / 255)  # the head reads the class token


def test_gradcam_has_one_row(swin: torch.nn.Module) -> None:
    answer = encode_image_heat(swin, IMAGE, "gradcam")
    _, wanted = gradcam(swin, EvalTransform(swin.preprocess)(IMAGE)[None])  # type: ignore[attr-defined]
    assert answer["queries"] is None and (decode_heat(answer) - wanted).abs().max() <= 1 / 255


def test_large_models_send_one_row(swin: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitrail.explain.served_heat.MOST_LEVELS", 1000)
    answer = encode_image_heat(swin, IMAGE, "rollout")
    assert answer["rows"] == 1 and answer["queries"] is None


def test_models_without_a_heatmap_are_named() -> None:
    model = create_model("poolformer_s12", dims=(8, 16), depths=(1, 1), num_classes=2)
    assert heat_kinds(model) == ["gradcam"] and heat_kinds(torch.nn.Linear(1, 1)) == []
    with pytest.raises(VitrailError, match="softmax attention"):
        encode_image_heat(model, IMAGE, "rollout")
