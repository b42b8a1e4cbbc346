"""Image completion: training on digits, samples, and weights that were really trained on MNIST."""

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vitrail
from vitrail.cli import main
from vitrail.data.datasets import open_dataset
from vitrail.models import create_model
from vitrail.tasks.complete.completion import complete, to_pixels
from vitrail.tasks.complete.options import GenerateOptions
from vitrail.tasks.complete.training import find_colors
from vitrail.tasks.language.metric import language_loss

SHARED = os.environ.get("VITRAIL_SHARED", "")
SIZES = ("dim=16", "depth=1", "num_heads=2", "side=8", "colors=6")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on digits."""
    folder = tmp_path_factory.mktemp("complete") / "run"
    words = ["train", "digits", "--task", "complete", "--set", *SIZES, "--epochs", "2", "--lr", "1e-2"]
    assert main([*words, "--precision", "fp32", "--out", str(folder)]) == 0
    return folder


def test_it_learns_pixels(run: Path) -> None:
    result = vitrail.evaluate(run, "digits", batch=100)
    assert result.nats < 1.3 < np.log(6) and result.samples == 359
    assert "Completions" in (run / "report.html").read_text()


def test_samples_keep_the_given_rows_and_follow_the_seed(run: Path) -> None:
    model, digits = vitrail.load_model(run / "weights" / "best"), open_dataset("digits").require("test")
    pixels = to_pixels(digits.image(0), model.config)
    one, again = (complete(model, pixels, GenerateOptions(samples=3, seed=1)) for _ in range(2))
    assert one.samples is not None and one.image is not None and again.samples is not None
    assert torch.equal(one.samples, again.samples) and not torch.equal(one.samples[0], one.samples[1])
    assert all(torch.equal(sample[:, :4], one.image[:, :4]) for sample in one.samples)
    alone = complete(model, pixels, GenerateOptions(samples=1, seed=1)).samples
    assert alone is not None and torch.equal(alone[0], one.samples[0])


def test_each_pixel_depends_on_those_before_it_alone() -> None:
    model = create_model("pixel_gpt_xxs", dim=16, depth=2, num_heads=2, side=4, colors=5).eval()
    ids = torch.randint(0, 5, (1, 16))
    other = ids.clone()
    other[0, 9:] = (ids[0, 9:] + 1) % 5
    one, two = (model(model.shifted(each)) for each in (ids, other))
    torch.testing.assert_close(one[:, :10], two[:, :10])
    assert not torch.allclose(one[:, 10:], two[:, 10:])


def test_the_command_writes_one_image(run: Path, tmp_path: Path, capsys: Any) -> None:
    open_dataset("digits").require("test").image(0).save(tmp_path / "digit.png")
    out = tmp_path / "sheet.png"
    words = ["generate", str(run), str(tmp_path / "digit.png"), "--samples", "2", "--seed", "3"]
    assert main([*words, "--out", str(out)]) == 0
    with Image.open(out) as sheet:
        assert sheet.size == (4 * 112 + 3 * 4, 112)
    assert main([*words, "--out", str(tmp_path / "sheet.jpg")]) == 2
    assert main(["generate", str(run)]) == 2
    assert main(["predict", str(run), str(tmp_path / "digit.png"), "--samples", "1"]) == 0
    assert "rows given" in capsys.readouterr().out


def test_a_missing_folder_is_told_before_the_model_runs(run: Path, tmp_path: Path, capsys: Any) -> None:
    Image.new("L", (8, 8), 90).save(tmp_path / "a.png")
    words = ["generate", str(run), str(tmp_path / "a.png"), "--out", str(tmp_path / "none" / "b.png")]
    assert main(words) == 2 and "there is no folder" in capsys.readouterr().err


def test_colours_are_the_centres_of_the_pixels() -> None:
    pixels = torch.tensor([0, 10, 250, 255], dtype=torch.uint8).reshape(1, 1, 2, 2)
    assert (find_colors(pixels, 2, seed=0) * 255).flatten().tolist() == pytest.approx([5.0, 252.5])
    assert (find_colors(pixels, 5, seed=0) * 255).flatten().tolist() == pytest.approx([0.0, 10.0, 250.0, 255.0, 255.0])


@pytest.mark.shared
@pytest.mark.skipif(not (Path(SHARED) / "weights").is_dir(), reason="VITRAIL_SHARED has no weights")
def test_published_weights_predict_mnist_and_complete_it(tmp_path: Path) -> None:
    weights = Path(SHARED) / "weights" / "igpt_xxs_mnist_gen_state_dict.pt"
    model = create_model("pixel_gpt_xxs", weights=weights).eval()
    raw = gzip.decompress((Path(SHARED) / "data" / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())
    digits = torch.from_numpy(np.frombuffer(raw, np.uint8, 28 * 28 * 200, 16).reshape(-1, 1, 28, 28).copy())
    with torch.inference_mode():
        ids = model.quantise(digits.float() / 255)
        loss = float(language_loss(model(model.shifted(ids)), ids))
    assert 0.27 < loss < 0.32
    Image.fromarray(digits[0, 0].numpy()).save(tmp_path / "seven.png")
    words = ["generate", "pixel_gpt_xxs", str(tmp_path / "seven.png"), "--weights", str(weights)]
    assert main([*words, "--out", str(tmp_path / "sheet.png")]) == 0
