"""Receptive field and local attribution of an output pixel."""

from pathlib import Path

import pytest
import torch
from torch import nn

from vitrail.cli import main
from vitrail.errors import VitrailError
from vitrail.explain.local_attribution import attribute, gini, receptive_field
from vitrail.models import create_model
from vitrail.parts.restorer_reach import reach


def small(name: str = "swinir_light_x2"):
    model = create_model(name, dim=12, depths=(2,), num_heads=2, window_size=4).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def test_the_receptive_field_equals_the_reach_of_a_pixel_change() -> None:
    model, image = small(), torch.rand(1, 3, 24, 24)
    field = receptive_field(model, image, 25, 22)
    with torch.no_grad():
        for y, x in [(12, 11), (12, 14), (3, 3), (0, 11), (12, 20)]:
            other = image.clone()
            other[0, :, y, x] += 0.5
            moved = (model(other) - model(image))[0, :, 25, 22].abs().max() > 0
            assert moved == (field[y, x] > 0)


def test_reach_is_within_the_formula() -> None:
    model, image = small(), torch.rand(1, 3, 48, 48)
    found = attribute(model, image, 48, 48, steps=4)
    assert 0 < found.reach <= reach(model)
    assert found.attribution.max() == 1 and 0 < found.diffusion < 100
    far = found.attribution[:4].max()
    assert far < found.attribution[20:28, 20:28].max()
    with pytest.raises(VitrailError, match="outside"):
        attribute(model, image, 96, 0)


def test_gini_of_known_shares() -> None:
    assert gini(torch.tensor([1.0, 1.0, 1.0])) == 0.0
    assert gini(torch.tensor([1.0, 3.0])) == pytest.approx(0.25)
    assert gini(torch.zeros(4)) == 0.0


def test_the_command_draws_it(run: Path, images: Path, tmp_path: Path, capsys) -> None:
    words = ["explain", str(run), str(images / "val" / "0.png"), "--out", str(tmp_path / "out")]
    assert main([*words, "--pixel", "30,30"]) == 0
    assert "depends on" in capsys.readouterr().out
    assert (tmp_path / "out" / "index.html").exists() and len(list((tmp_path / "out").glob("*.png"))) >= 1
    assert main([*words, "--pixel", "900,30"]) == 2
    assert main([*words, "--method", "rollout"]) == 2
