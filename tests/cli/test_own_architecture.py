"""A custom token mixer in one file works with every verb (docs/token_mixer.md)."""

import json
from pathlib import Path

import pytest
from PIL import Image

RECIPE = Path(__file__).parents[2] / "recipes" / "linear_attention.py"
SMALL = ["--imgsz", "8", "--set", "dim=16", "depth=2", "num_heads=2", "patch_size=4", "--epochs", "1", "--batch", "120"]


def test_a_custom_mixer_works_with_every_verb(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VITRAIL_MODELS", str(RECIPE))
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((8, 8), 80).save("new.png")
    assert [row["name"] for row in json.loads(run("models", "linear*", "--json").out)] == [
        "linear_tiny",
        "linear_small",
    ]
    assert "parameters     5,717,416" in run("models", "linear_tiny").out  # DeiT-Ti's: the mixers hold as much
    assert run("train", "digits", "--model", "linear_tiny", *SMALL, "--out", "run").code == 0
    assert run("evaluate", "run", "digits").code == 0
    assert run("predict", "run", "new.png").code == 0
    assert "influence" in run("explain", "run", "new.png", "--method", "influence").out
    assert Path("runs/explain/index.html").is_file()


def test_a_run_without_its_custom_file_is_refused(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VITRAIL_MODELS", str(RECIPE))
    assert run("train", "digits", "--model", "linear_tiny", *SMALL, "--out", tmp_path / "run").code == 0
    monkeypatch.delenv("VITRAIL_MODELS")
    Image.effect_noise((8, 8), 80).save(tmp_path / "new.png")
    ended = run("predict", tmp_path / "run", tmp_path / "new.png")
    assert ended.code == 2 and "VITRAIL_MODELS" in ended.err


def test_a_variant_without_counts_is_listed(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = RECIPE.read_text().replace("elu(q) + 1, elu(k) + 1", "torch.fft.fft(q).real, elu(k) + 1")
    (tmp_path / "fourier.py").write_text(
        text.replace('"linear_', '"fourier_').replace("from torch", "import torch\nfrom torch", 1)
    )
    monkeypatch.setenv("VITRAIL_MODELS", str(tmp_path / "fourier.py"))
    listed = run("models", "*tiny*")
    assert listed.code == 0
    assert listed.out.splitlines()[-1].split()[:4] == ["fourier_tiny", "fourier", "224", "5.7M"]
    assert "there is no counting rule for 'aten._fft_r2c.default'" in listed.out.splitlines()[-1]
    shown = run("models", "fourier_tiny")
    assert shown.code == 0 and "multiply-adds  unknown" in shown.out
    assert "@register_flop_formula(torch.ops.aten._fft_r2c)" in shown.out
