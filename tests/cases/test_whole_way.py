"""The whole way of a model, for every family of images: train, report, evaluate, predict, explain, convert, resume.

N18: a family without token mixers ended in a traceback after its training.
"""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vitrail
from vitrail.cli import main
from vitrail.explain.figures import methods_scene
from vitrail.explain.gallery import attention_overlays
from vitrail.explain.rollout import rollout
from vitrail.models import create_model, make_config

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
QUICK = ("vit", "bit")
"""Families of `make test`: one with attention, one without token mixers."""


def learning() -> dict:
    """Return the table of small variants of the learning benchmark."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return runpy.run_path(str(BENCHMARKS / "learning.py"))
    finally:
        sys.path.remove(str(BENCHMARKS))


LEARNING = learning()
FAMILIES = LEARNING["ROWS"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (root / "photos" / name).mkdir(parents=True)
        for k in range(6):
            pixels = rng.integers(0, 256, (40 + k, 36, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "photos" / name / f"{k}.png")
    return root / "photos"


def test_every_image_family_has_a_row():
    assert set(LEARNING["image_families"]()) <= set(FAMILIES)


@pytest.mark.parametrize(
    "family", [family if family in QUICK else pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES]
)
def test_every_verb_runs_for_every_family(family, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model, numbers = FAMILIES[family]
    image = str(photos / "ant" / "0.png")
    data = str(photos)
    shape = ["--model", model, "--set", *numbers.split(), "--imgsz", "32", "--batch", "5", "--epochs", "1"]
    assert main(["train", data, *shape, "--save-steps", "1", "--out", "run"]) == 0
    assert Path("run/report.html").stat().st_size > 10_000
    assert main(["evaluate", "run", data, "--split", "val", "--report", "evaluation.html"]) == 0
    assert main(["predict", "run", image, "--out", "found.json"]) == 0
    assert main(["explain", "run", image, "--out", "looks"]) == 0 and Path("looks/index.html").is_file()
    assert main(["convert", "run/weights/best", "--out", "copy"]) == 0
    assert vitrail.load_model("copy").labels == ("ant", "bee")
    config = Path("run/config.yaml")
    config.write_text(config.read_text().replace("epochs: 1\n", "epochs: 2\n"))
    assert main(["train", "--resume", "run"]) == 0
    told = capsys.readouterr().out
    assert "epoch    2" in told and "Traceback" not in told


def test_rollout_through_stages_without_attention():
    """Non-local blocks are followed by a stage without attention, whose grid is coarser."""
    model = create_model("nonlocal1_resnet50", dim=16, depths=(1, 2, 1), blocks=((), (1,), ()), num_classes=2).eval()
    shares = rollout(model, torch.randn(2, 3, 64, 64))
    assert shares.shape == (2, 8, 8) and torch.allclose(shares.sum((1, 2)), torch.ones(2), atol=1e-5)
    one = rollout(model, torch.randn(1, 3, 64, 64), query=(3, 4))
    assert one.shape == (1, 8, 8) and not one.requires_grad


def test_models_that_round_pixels_have_figures_without_saliency():
    model = create_model("imagegpt_small", dim=8, depth=2, num_heads=1, colors=27, image_size=16, num_classes=2).eval()
    figure = methods_scene(model, torch.rand(1, 3, 16, 16))
    assert len(figure.tiles) == 3 and "Without saliency: No gradient reaches the pixels" in figure.note


@pytest.mark.parametrize("name", ["deepvit_patch16_224_re_attn_16b", "convit_tiny"])
def test_maps_with_learned_head_mixing_are_drawn(name):
    sizes = {"depth": 2, "dim": 24, "num_heads": 4, "image_size": 32, "num_classes": 2}
    model = create_model(name, **sizes, **({"class_depth": 1} if name == "convit_tiny" else {})).eval()
    for method in ("rollout", "maps"):
        assert attention_overlays(model, torch.rand(1, 3, 32, 32), method)


def test_numbers_of_overrides_become_those_of_the_published_field():
    assert make_config("pvt_tiny", mlp_ratios=(4, 4, 4, 4)).mlp_ratios == (4.0,) * 4
    assert type(make_config("pvt_tiny", mlp_ratios=[4, 4, 4, 4]).mlp_ratios[0]) is float
    published = make_config("botnet26t_256").attention
    assert 0 in published and make_config("botnet26t_256", attention=published).attention == published
