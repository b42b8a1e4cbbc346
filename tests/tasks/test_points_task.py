"""Classification of point clouds from files to report: sampling, augmentation, resume, results, bad input."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import vitrail
from vitrail.cli import main
from vitrail.data.points.cloud import Cloud, PointFileError
from vitrail.data.points.shapes import SHAPES, varied
from vitrail.data.stateless_rng import BatchRng
from vitrail.errors import DataError, VitrailError
from vitrail.point_sampling import PointSampling
from vitrail.tasks import find_task
from vitrail.tasks.points.augmentation import rotations, vary
from vitrail.tasks.points.batches import PointBatch
from vitrail.tasks.points.drawing import draw_points
from vitrail.tasks.points.options import EvaluateOptions, PredictOptions, TrainOptions
from vitrail.tasks.points.sampling import sampled, still
from vitrail.tasks.points.sources import find_clouds
from vitrail.training.config import RunConfig
from vitrail.training.signals import Interrupted, StopRequest
from vitrail.training.train import train

SMALL = ("dim=16", "global_dim=64", "transforms=false")
WORDS = ("--task", "points", "--points", "64", "--batch", "9", "--lr", "5e-3", "--precision", "fp32")
PT = ("dim=64", "sort_nets=2", "picks=4", "centers=12,8", "num_heads=2")


class StopAt:
    """A reporter that requests a stop after some updates."""

    def __init__(self, stop: Any, step: int) -> None:
        self.stop, self.at = stop, step

    def step(self, stats: Any) -> None:
        if stats.step == self.at:
            self.stop.code = 130

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


def write_off(path: Path, cloud: Cloud) -> Path:
    assert cloud.faces is not None
    rows = [f"{x} {y} {z}" for x, y, z in cloud.points.tolist()] + [
        f"3 {a} {b} {c}" for a, b, c in cloud.faces.tolist()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([f"OFF\n{len(cloud.points)} {len(cloud.faces)} 0", *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of meshes."""
    root = tmp_path_factory.mktemp("shapes")
    for name in ("sphere", "lamp"):
        for number in range(18):
            split = "test" if number >= 15 else "train"
            write_off(root / split / name / f"{number:02}.off", varied(SHAPES[name](), number))
    return root


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    words = [
        "train",
        str(data),
        *WORDS,
        "--model",
        "pointnet",
        "--set",
        *SMALL,
        "--epochs",
        "30",
        "--eval-every",
        "15",
        "--scale",
        "1",
    ]
    assert main([*words, "--out", str(out)]) == 0
    return out


def test_it_learns_and_reports(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert summary["task"] == "points" and summary["top1"] >= 0.8 and summary["split"] == "test"
    page = (run / "report.html").read_text()
    assert 'class="cloud"' in page and "script-src 'sha256-" in page and page.count("<script>") == 1
    model = vitrail.load_model(run / "weights" / "best")
    assert model.labels == ("lamp", "sphere") and model.inputs == PointSampling(64)


def test_the_evaluation_survives_a_file(run: Path, data: Path) -> None:
    found: Any = vitrail.evaluate(run, data, split="test")
    values = json.loads(json.dumps(found.to_dict()))
    assert find_task("points").read_evaluation(values) == found
    assert found.metrics()["mean_class"] == pytest.approx(found.metrics()["top1"])  # balanced classes
    assert found.points == 64 and len(found.examples[0].points) == 3 * 64


def test_prediction_of_files_folders_and_arrays(run: Path, data: Path) -> None:
    path = data / "test" / "lamp" / "15.off"
    [found] = vitrail.predict(run, path)
    assert found.label == "lamp" and found.to_dict()["points"] == 64
    assert found.draw().size[0] == 480 and str(found).startswith(str(path))
    whole = vitrail.predict(run, data / "test", batch=4)
    assert whole[0].probabilities == pytest.approx(found.probabilities, abs=1e-5) and len(whole) == 6
    cloud = varied(SHAPES["lamp"](), 15).points
    assert len(vitrail.predict(run, [cloud, torch.from_numpy(cloud)])) == 2
    assert len(vitrail.predict(run, np.stack([cloud, cloud]))) == 2


def test_an_unreadable_cloud_is_a_result_with_its_error(run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.off").write_text("OFF\n3 1 0\n0 0")
    write_off(tmp_path / "b.off", SHAPES["sphere"]())
    broken, good = vitrail.predict(run, tmp_path)
    assert "ends too early" in broken.error and good.error is None
    with pytest.raises(DataError):
        _ = broken.label
    assert "error" in broken.to_dict()


@pytest.mark.parametrize(
    "points",
    [np.zeros((1, 3)), np.ones((2, 3)), np.full((300, 3), 1e30), np.linspace(0, 1, 90)[:, None] * np.ones(3)],
    ids=["one point", "two equal points", "1e30", "a line"],
)
def test_degenerate_clouds_have_finite_outputs(run: Path, points: np.ndarray) -> None:
    [found] = vitrail.predict(run, points)
    assert found.error is None and sum(found.probabilities) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_ten_million_points_of_a_file_stay_within_a_gibibyte(run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", np.random.default_rng(0).random((10_000_000, 3), dtype=np.float32))
    vitrail.predict(run, np.zeros((1, 3)))  # loads the model
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    [found] = vitrail.predict(run, tmp_path / "scan.npy")
    assert found.error is None and peak() - before < 2**20


def peak() -> int:
    """Return the largest memory of the process since it was reset, in KiB."""
    return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0])


@pytest.mark.parametrize("points", [np.zeros((0, 3)), np.full((5, 3), np.nan), np.zeros((5, 2))])
def test_invalid_clouds_are_errors(points: np.ndarray) -> None:
    with pytest.raises(PointFileError):
        find_clouds(points)[0].read()


def test_a_resumed_run_ends_with_the_same_bits(data: Path, tmp_path: Path) -> None:
    words = ["train", str(data), *WORDS, "--model", "pointnet", "--set", *SMALL[:2], "--epochs", "3"]
    assert main([*words, "--save-steps", "1", "--save-seconds", "0", "--out", str(tmp_path / "whole")]) == 0
    values = yaml.safe_load((tmp_path / "whole" / "config.yaml").read_text())
    config, stop = RunConfig.from_dict({**values, "out": str(tmp_path / "cut")}), StopRequest()
    with pytest.raises(Interrupted):
        train(config, StopAt(stop, 4), stop)
    values = yaml.safe_load((tmp_path / "cut" / "config.yaml").read_text())
    train(RunConfig.from_dict({**values, "resume": "auto"}))
    files = [tmp_path / name / "weights" / "last" / "model.safetensors" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_point_transformer_trains_and_its_picks_are_drawn(data: Path, tmp_path: Path) -> None:
    words = ["train", str(data), *WORDS, "--model", "point_transformer_engel", "--set", *PT, "--epochs", "1"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert 'data-picks=""' not in page
    [found] = vitrail.predict(tmp_path / "run", varied(SHAPES["lamp"](), 3).points)
    assert [len(net) for net in found.picks] == [4, 4]
    plain, picked = (draw_points(found.points, picks, 120) for picks in ((), found.picks))
    assert plain.tobytes() != picked.tobytes()


def test_broken_files_are_counted_and_named(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("sphere", "lamp"):
        shutil.copytree(data / "test" / name, tmp_path / "test" / name)
    (tmp_path / "test" / "lamp" / "15.off").write_bytes(b"OFF\n9 9 9\n")
    assert main(["evaluate", str(run), str(tmp_path)]) == 3
    assert "test/lamp/15.off: declares 9 points" in (error := capsys.readouterr().err) and "--bad skip" in error
    assert main(["evaluate", str(run), str(tmp_path), "--bad", "skip", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["samples"], found["skipped"], found["skipped_names"]) == (5, 1, ["test/lamp/15.off"])
    result = vitrail.evaluate(run, str(tmp_path), bad="skip")
    assert result.summary().endswith(" 1 cloud cannot be used and is left out: test/lamp/15.off.")
    for path in (tmp_path / "test").rglob("*.off"):
        path.write_bytes(b"OFF\n9 9 9\n")
    with pytest.raises(DataError, match="Not one cloud"):
        vitrail.evaluate(run, str(tmp_path), bad="skip")


def test_broken_files_are_listed_before_training(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for path in data.rglob("*.off"):
        target = tmp_path / path.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (tmp_path / "train" / "lamp" / "00.off").write_bytes(b"OFF\n9 9 9\n")
    assert (
        main(["train", str(tmp_path), *WORDS, "--model", "pointnet", "--set", *SMALL, "--out", str(tmp_path / "r")])
        == 3
    )
    assert "train/lamp/00.off: declares 9 points" in capsys.readouterr().err
    opened = find_task("points").open(str(tmp_path), 0.1, "skip")
    assert len(opened.require("test")) == 6 and [each.id for each in opened.skipped] == ["train/lamp/00.off"]
    assert "1 file cannot be used and is left out, first train/lamp/00.off" in opened.notes()[0]


def test_sampling_is_a_function_of_cloud_and_number() -> None:
    cloud = SHAPES["torus"]()
    for method in ("uniform", "farthest"):
        first, again, other = (sampled(cloud, PointSampling(50, method), still(n)) for n in (3, 3, 4))
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert first.shape == (50, 3) and first.norm(dim=1).max() == pytest.approx(1)
    spread, even = (torch.cdist(x, x).fill_diagonal_(9).min() for x in
                    (sampled(cloud, PointSampling(50, m), still(3)) for m in ("uniform", "farthest")))  # fmt: skip
    assert even > 2 * spread


def test_augmentation_is_a_function_of_seed_step_and_sample() -> None:
    points, options = torch.rand(4, 30, 3) - 0.5, TrainOptions(tilt=20)
    together = vary(points, BatchRng(1, 7, np.arange(4)), options)
    alone = vary(points[2:3], BatchRng(1, 7, np.array([2])), options)
    assert torch.equal(together[2:3], alone)
    assert not torch.allclose(together, vary(points, BatchRng(1, 8, np.arange(4)), options))
    still_options = TrainOptions(rotation=0, scale=1, shift=0, jitter=0)
    assert torch.equal(vary(points, BatchRng(1, 7, np.arange(4)), still_options), points)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rotations_are_rotations(axis: int) -> None:
    found = rotations(np.array([0.3, -1.2]), axis)
    assert np.allclose(found @ found.transpose(0, 2, 1), np.eye(3)) and np.allclose(np.linalg.det(found), 1)
    assert np.allclose(found[:, axis], np.eye(3)[axis])


def test_a_batch_splits_into_parts_that_weigh_it() -> None:
    batch = PointBatch(torch.rand(5, 4, 3), torch.arange(5), torch.arange(5))
    parts = batch.split(3)
    assert sum(share for share, _ in parts) == pytest.approx(1) and batch.placeholder().weight == 1
    assert torch.equal(torch.cat([part.points for _, part in parts]), batch.points)


def test_options_that_do_not_fit(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for options in (PredictOptions, EvaluateOptions):
        with pytest.raises(VitrailError, match="compute in fp32"):
            options(precision="int8")
    for words, reason in (
        (["--model", "vit_tiny_patch16_224"], "no model of the task points"),
        (["--model", "pointnet", "--set", "in_channels=6"], "3 coordinates"),
        (["--model", "pointnet", "--set", "num_classes=9"], "The data has 2 classes"),
        (["--model", "pointnet", "--jitter", "-1"], "jitter"),
    ):
        assert main(["train", str(data), "--task", "points", *words, "--out", str(tmp_path / "no")]) == 2
        assert reason in capsys.readouterr().err


def test_other_classes_than_the_models(run: Path) -> None:
    with pytest.raises(VitrailError, match="has the class box"):
        vitrail.evaluate(run, "shapes:2", split="train")
