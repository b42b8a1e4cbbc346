"""A run that stops on unreadable data goes on with other options: all of them, if it has saved nothing."""

from pathlib import Path

import pytest
from PIL import Image
from small_run import TINY

from vitrail.cli import main
from vitrail.errors import VitrailError
from vitrail.training.checkpoint import UNSAVED
from vitrail.training.config import TrainConfig
from vitrail.training.run_dir import read_config, settle_config, write_config

WORDS = ["--model", "vit_tiny_patch16_224", "--imgsz", "16", "--set", "dim=16", "depth=1", "num_heads=2"]


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """A data set whose training images are of two sizes, with an unreadable one."""
    for split, count in (("train", 6), ("val", 2)):
        for kind, shade in (("dark", 20), ("light", 220)):
            place = tmp_path / "shades" / split / kind
            place.mkdir(parents=True)
            for i in range(count):
                Image.new("L", (30 + i, 30), shade + i).save(place / f"{i}.png")
    (tmp_path / "shades" / "train" / "dark" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    return tmp_path / "shades"


def test_a_run_that_stopped_before_its_first_update_leaves_out_what_it_stopped_on(
    shades: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["train", str(shades), *WORDS, "--epochs", "2", "--batch", "13", "--out", str(out)]) == 3
    assert "broken.png" in capsys.readouterr().err
    assert main(["train", "--resume", str(out), "--bad", "skip", "--epochs", "1"]) == 0
    assert (read_config(out).bad, read_config(out).epochs, read_config(out).batch) == ("skip", 1, 13)
    assert main(["train", "--resume", str(out), "--epochs", "3"]) == 2  # it has a saved state now
    assert "begun with epochs=1; it cannot go on with epochs=3" in capsys.readouterr().err


def test_the_policy_for_unreadable_samples_changes_in_a_saved_run(tmp_path: Path) -> None:
    write_config(tmp_path, TINY)
    (tmp_path / "state" / "step-00000010").mkdir(parents=True)
    assert settle_config(TrainConfig(resume=str(tmp_path), bad="skip"))[0].bad == "skip"
    with pytest.raises(VitrailError, match=r"begun with lr=None; it cannot go on with lr=0\.1"):
        settle_config(TrainConfig(resume=str(tmp_path), bad="skip", lr=0.1))


def test_the_task_of_a_run_without_a_saved_state_stays(tmp_path: Path) -> None:
    write_config(tmp_path, TINY)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / UNSAVED).touch()
    assert settle_config(TrainConfig(resume=str(tmp_path), lr=0.1, seed=5))[0].seed == 5
    with pytest.raises(VitrailError, match="begun with task=classify"):
        settle_config(TrainConfig(resume=str(tmp_path), task="segment"))
