"""`benchmarks/agreement.py` on models that agree, and on one that does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import vitrail
from vitrail.preprocess import Preprocess


@pytest.fixture(scope="module")
def script(benchmarks: Callable[[str], Any]) -> Any:
    """The script."""
    return benchmarks("agreement")


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Three images of noise in each of two folders."""
    draw = torch.Generator().manual_seed(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            noise = torch.randint(0, 256, (40, 40, 3), generator=draw, dtype=torch.uint8)
            Image.fromarray(noise.numpy()).save(tmp_path / name / f"{i}.png")
    return tmp_path


@pytest.fixture
def small_model(monkeypatch: pytest.MonkeyPatch, script: Any) -> Any:
    """Have the script build a small model, whatever its name."""
    numbers = {"depth": 1, "dim": 32, "num_heads": 2, "num_classes": 2, "image_size": 32}
    model = vitrail.create_model("vit_tiny_patch16_224", preprocess=Preprocess(size=32), **numbers).eval()
    model.labels = ("cat", "dog")

    class Small:
        def __init__(self, name: str, weights: str | None):
            pass

        def build(self) -> Any:
            return model

    monkeypatch.setattr(script, "ModelSpec", Small)
    return model


def table(page: str, title: str) -> dict[str, list[str]]:
    """Return the rows of a table by their form."""
    lines = page.partition(f"## {title}")[2].partition("## ")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {form: rest for form, *rest in cells[1:]}


def test_every_form_is_compared_on_views_and_on_classes_that_are_known(
    script: Any, small_model: Any, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--models", "small", "--images", str(image_folder), "--views", "2", "--data", str(image_folder)]
    assert script.main(words) == 0
    page = capsys.readouterr().out
    views = table(page, f"small: {image_folder}, 12 views of 6 images")
    assert list(views) == ["fp32, as it is", "plain, bf16", "optimized, fp32", "optimized, bf16", "optimized, int8"]
    assert views["fp32, as it is"][:4] == ["100.00%", "0.00e+00", "0.00e+00", ""] and len(views["plain, bf16"]) == 5
    off = {form: float(cells[1]) for form, cells in views.items()}
    assert off["optimized, fp32"] < 1e-5 < off["plain, bf16"] < 0.1
    known = table(page, "small on ")
    assert list(known) == ["fp32, as it is", "optimized, fp32", "optimized, bf16", "optimized, int8"]
    assert known["optimized, fp32"] == known["fp32, as it is"]


def test_another_class_and_how_clear_it_was_are_reported(script: Any, small_model: Any, image_folder: Path) -> None:
    def swapped(images: torch.Tensor) -> torch.Tensor:
        return small_model(images).flip(1)

    told = script.agreement("small", script.Forms(small_model, {"swapped": swapped}), str(image_folder), 1)
    with torch.inference_mode():
        logits = script.ask(small_model, script.views(str(image_folder), small_model.preprocess, 6))
    lead = (logits[:, 0] - logits[:, 1]).abs().max().item()
    assert {row[0]: row[1:] for row in told.rows}["swapped"][::3] == ["0.00%", f"{lead:.2f}"]
