"""Every verb refuses a place that takes no result, and class names that do not fit, before any long work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitrail.models import create_model
from vitrail.weights.folder import save_model

Run = Callable[..., Any]
NOWHERE = "/proc/vitrail"  # a file system in which nobody, root neither, makes files
no_proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="this system has no /proc")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, an image and a list of too few classes."""
    folder = tmp_path_factory.mktemp("places")
    tiny: dict[str, Any] = {"image_size": 16, "patch_size": 8, "dim": 16, "depth": 1, "num_heads": 2}
    save_model(create_model("vit_tiny_patch16_224", num_classes=10, **tiny), folder / "model")
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / "a.png")
    (folder / "few.txt").write_text("cat\ndog\n")
    return folder


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no model answer, learn, or be converted."""

    def work(*args: object, **named: object) -> None:
        raise AssertionError("the work has begun")

    for name in ("forward", "features"):
        monkeypatch.setattr(f"vitrail.parts.backbone.Classifier.{name}", work)
    for name in (
        "fused.auto_optimize.InferenceRunner.__init__",
        "training.train.open_data",
        "training.dry_run.open_data",
    ):
        monkeypatch.setattr(f"vitrail.{name}", work)
    monkeypatch.setattr("vitrail.weights.convert.read_source", work)


@no_proc
@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize(
    "words",
    [
        "predict {place}/model {place}/a.png --out /proc/vitrail.jsonl",
        "predict {place}/model {place}/a.png --out /proc/vitrail.csv",
        "evaluate {place}/model digits --out /proc/vitrail.json",
        "evaluate {place}/model digits --report /proc/vitrail.html",
        "explain {place}/model {place}/a.png --out /proc/vitrail",
        "explain {place}/model {place}/a.png --out /proc/vitrail/deep",
        "convert {place}/model --to timm --out /proc/vitrail.pth",
        "convert {place}/model --to timm --out /proc/vitrail/deep/y.pth",
        "convert {place}/model --to huggingface --out /proc/vitrail",
        "convert {place}/model --out /proc/vitrail",
        "convert {place}/model --out /proc/vitrail/deep",
        "train digits --out /proc/vitrail",
        "train digits --out /proc/vitrail --dry-run",
        "train digits --out {place}/a.png",
        "train digits --out {place}/a.png/run",
        "explain {place}/model {place}/a.png --out {place}/few.txt",
        "convert {place}/model --out {place}/a.png/deep",
        "convert {place}/model --to timm --out {place}/a.png/y.pth",
        "convert {place}/model --out {place}",
    ],
)
def test_an_unwritable_destination_is_refused_before_any_work(run: Run, place: Path, words: str) -> None:
    named = words.split()
    ran = run(*words.format(place=place).split())
    assert ran.code == 2, ran.err
    out = named[named.index("--out" if "--out" in named else "--report") + 1].format(place=place)
    assert out in ran.err and ".new-" not in ran.err and ran.err.count("\n") <= 6


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize(
    "words",
    ["predict {place}/model {place}/a.png", "explain {place}/model {place}/a.png", "evaluate {place}/model digits"],
)
def test_class_names_that_do_not_fit_are_refused_before_any_work(
    run: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run(*words.format(place=place).split(), "--labels", place / "few.txt")
    assert ran.code == 2 and "Got 2 class names for a model of 10 classes" in ran.err
    ran = run(*words.format(place=place).split(), "--labels", place / "none.txt")
    assert ran.code == 2 and "none.txt" in ran.err
    assert not list(tmp_path.iterdir())
