"""A restorer trains on patches, resumes to the bit, and faults of the data are named before it begins."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from restore_sets import make_config, make_set, photo
from safetensors.torch import load_file

import vitrail
from vitrail.data.degradations import parse
from vitrail.data.restoration_set import open_restoration
from vitrail.errors import DataError, VitrailError
from vitrail.tasks.restore.patches import PatchSet, whole_pair
from vitrail.training.log import read_log
from vitrail.training.train import train


def patches(folder: Path, degradation: str = "bicubic", flips: bool = True) -> PatchSet:
    return PatchSet(open_restoration(str(folder), 0.0).require("train"), parse(degradation, 2), 3, 8, 2, flips, 5)


def test_it_learns(run: Path) -> None:
    rows = read_log(run / "metrics.jsonl", "epoch")
    assert rows[-1]["psnr"] > rows[0]["psnr"] + 1
    summary = json.loads((run / "summary.json").read_text())
    assert summary["task"] == "restore" and summary["val_psnr"] == max(row["psnr"] for row in rows)
    model = vitrail.load_model(run / "weights" / "best")
    assert (model.task, model.scale, model.metadata["degradation"]) == ("restore", 2, "bicubic")
    assert "image-to-image" in (run / "weights" / "best" / "README.md").read_text()
    assert "Side by side" in (run / "report.html").read_text() if (run / "report.html").exists() else True


@pytest.mark.parametrize("degradation", ["bicubic", "blur:0.5-1+bicubic+noise:5"])
def test_a_patch_is_cut_from_the_degraded_image(images: Path, degradation: str) -> None:
    found = patches(images, degradation, flips=False)
    low, high = (x.numpy()[0].transpose(1, 2, 0) * 255 for x in found[3, np.array([7])][:2])
    whole_low, whole_high = whole_pair(found.images, 3, parse("bicubic", 2), 3)
    places = [
        (y, x)
        for y in range(whole_low.shape[0] - 7)
        for x in range(whole_low.shape[1] - 7)
        if np.abs(whole_high[2 * y : 2 * y + 16, 2 * x : 2 * x + 16] - high).max() < 1e-3
    ]
    assert len(places) == 1
    if degradation == "bicubic":
        y, x = places[0]
        np.testing.assert_allclose(whole_low[y : y + 8, x : x + 8], low, atol=1e-3)


def test_patches_depend_on_seed_epoch_and_number_alone(images: Path) -> None:
    found = patches(images, "bicubic+noise:5")
    both, alone = found[1, np.array([2, 9])], found[1, np.array([9])]
    assert (both.low[1] == alone.low[0]).all() and (both.high[1] == alone.high[0]).all()
    assert not (found[2, np.array([9])].low == alone.low).all()


def test_both_images_of_a_pair_turn_alike(images: Path) -> None:
    found = patches(images)
    for number in range(10):
        low, high = found[0, np.array([number])][:2]
        small = high.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
        assert (small - low).abs().mean() < 0.05


def test_a_killed_run_ends_with_the_same_bits(images: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(make_config(images, whole, epochs=4))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from restore_sets import make_config;"
        "from vitrail.training.train import train; import torch; torch.set_num_threads(1);"
        "train(make_config(Path(sys.argv[2]), Path(sys.argv[3]), epochs=4, save_steps=1))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(Path(__file__).parent), str(images), str(killed)])
    while process.poll() is None and not list((killed / "state").glob("step-*")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    train(make_config(images, killed, epochs=4, resume="auto"))
    one, two = (load_file(folder / "weights" / "last" / "model.safetensors") for folder in (whole, killed))
    assert all((one[name] == two[name]).all() for name in one)


def test_workers_do_not_change_the_result(images: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        train(make_config(images, tmp_path / str(workers), epochs=1, workers=workers))
    one, two = (load_file(tmp_path / name / "weights" / "last" / "model.safetensors") for name in ("0", "2"))
    assert all((one[name] == two[name]).all() for name in one)


def test_corrupt_files_are_listed_before_training_or_left_out(tmp_path: Path) -> None:
    data = make_set(tmp_path / "set")
    (data / "train" / "0.png").write_bytes((data / "train" / "0.png").read_bytes()[:-40])
    (data / "val" / "1.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"2 images of set cannot be read:(.|\n)*0.png(.|\n)*1.png(.|\n)*--bad skip"):
        train(make_config(data, tmp_path / "run"))
    assert not (tmp_path / "run" / "weights").exists()
    summary = train(make_config(data, tmp_path / "run2", bad="skip", epochs=1))
    assert summary.steps > 0 and summary.skipped == 2
    assert {Path(name).name for name in summary.skipped_names} == {"0.png", "1.png"}


def test_pairs_whose_sizes_do_not_fit_are_listed(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "HR").mkdir(parents=True)
        (tmp_path / split / "LR" / "X2").mkdir(parents=True)
        for number in range(4):
            photo(number).save(tmp_path / split / "HR" / f"{number}.png")
            photo(number, 20, 18).save(tmp_path / split / "LR" / "X2" / f"{number}x2.png")
    train(make_config(tmp_path, tmp_path / "run", epochs=1))
    photo(1, 20, 17).save(tmp_path / "train" / "LR" / "X2" / "1x2.png")
    (tmp_path / "train" / "LR" / "X2" / "2x2.png").unlink()
    with pytest.raises(DataError, match=r"2 images(.|\n)*36 x 40 is not 2 times 17 x 20(.|\n)*no image 2x2 or 2"):
        train(make_config(tmp_path, tmp_path / "other", epochs=1))


def test_images_smaller_than_a_patch_and_models_that_do_not_restore(images: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="smaller than a patch of 48 x 48"):
        train(make_config(images, tmp_path / "a", patch=24))
    with pytest.raises(VitrailError, match="vit_tiny_patch16_224 does not restore images"):
        train(make_config(images, tmp_path / "b", model="vit_tiny_patch16_224", set=()))
    with pytest.raises(VitrailError, match="model has scale 2"):
        train(make_config(images, tmp_path / "c", degradation="noise:25"))


def test_a_folder_without_images_or_of_low_images_only(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        open_restoration(str(tmp_path), 0.1)
    (tmp_path / "LR").mkdir()
    with pytest.raises(DataError, match="no folder HR"):
        open_restoration(str(tmp_path), 0.1)
    with pytest.raises(VitrailError, match="There is no folder"):
        open_restoration(str(tmp_path / "no"), 0.1)
