"""Saved custom architectures name the file that they need."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vitrail.errors import VitrailError
from vitrail.training.config import TrainConfig
from vitrail.training.train import train
from vitrail.weights.folder import load_model

RECIPE = Path(__file__).parents[2] / "recipes" / "linear_attention.py"


def test_a_run_and_its_weights_name_their_file_and_not_its_path(
    tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setenv("VITRAIL_MODELS", str(RECIPE))
    train(tiny(model="linear_tiny", epochs=1, drop_path=None))
    kept = [json.loads((run / name).read_text()) for name in ("env.json", "weights/best/config.json")]
    assert [each["architecture_file"] for each in kept] == ["linear_attention.py"] * 2
    assert str(RECIPE.parent) not in json.dumps(kept)
    assert load_model(run / "weights" / "best").variant == "linear_tiny"

    for elsewhere in ("", str(tmp_path / "other.py")):
        (tmp_path / "other.py").write_text(RECIPE.read_text().replace('"linear_', '"other_'))
        monkeypatch.setenv("VITRAIL_MODELS", elsewhere)
        for read in (lambda: load_model(run / "weights" / "best"), lambda: train(TrainConfig(resume=str(run)))):
            with pytest.raises(VitrailError, match=r"in the file linear_attention\.py, which is not named here"):
                read()


def test_a_model_of_the_library_names_no_file(tiny: Callable[..., TrainConfig], tmp_path: Path) -> None:
    train(tiny(epochs=1))
    assert "architecture_file" not in (tmp_path / "run" / "env.json").read_text()
    assert "architecture_file" not in (tmp_path / "run" / "weights" / "best" / "config.json").read_text()
