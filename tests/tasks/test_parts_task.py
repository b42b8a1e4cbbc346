"""Parts of point clouds from files to report: figures against a loop, training, results, bad input."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vitrail
from vitrail.cli import main
from vitrail.data.points.reading import read_cloud
from vitrail.data.points.shapes import SHAPES, varied
from vitrail.errors import DataError, VitrailError
from vitrail.models import create_model
from vitrail.point_sampling import PointSampling
from vitrail.tasks import find_task
from vitrail.tasks.parts.metric import PartMetric
from vitrail.tasks.points.batches import PointBatch
from vitrail.tasks.points.sampling import sampled, sampled_parts, still

SMALL = ("dim=16", "global_dim=32")
WORDS = ("--task", "parts", "--points", "64", "--batch", "6", "--lr", "1e-2", "--precision", "fp32")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lamps and cones as NPZ files with a part for each face."""
    root = tmp_path_factory.mktemp("parts")
    for name in ("lamp", "cone"):
        (root / name).mkdir()
        for number in range(12):
            mesh = varied(SHAPES[name](), number)
            np.savez(root / name / f"{number:02}.npz", points=mesh.points, faces=mesh.faces, parts=mesh.parts)
    return root


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    words = ["train", str(data), *WORDS, "--set", *SMALL, "--epochs", "40", "--eval-every", "20", "--scale", "1"]
    assert main([*words, "--val-share", "0.2", "--out", str(out)]) == 0
    return out


def test_it_learns_and_reports(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert summary["task"] == "parts" and summary["accuracy"] > 0.7 and 0 < summary["miou"] < 1
    page = (run / "report.html").read_text()
    assert page.count('class="cloud"') >= 2 and page.count("<script>") == 1 and "part 2" in page
    model = vitrail.load_model(run / "weights" / "best")
    assert model.labels == ("part 0", "part 1", "part 2") and model.task == "parts"


def test_the_evaluation_survives_a_file(run: Path, data: Path) -> None:
    found: Any = vitrail.evaluate(run, data, split="val")
    assert find_task("parts").read_evaluation(json.loads(json.dumps(found.to_dict()))) == found
    again: Any = vitrail.evaluate(run, data, split="val", batch=1)
    assert again.miou == found.miou and [each.id for each in again.worst] == [each.id for each in found.worst]
    assert "mean IoU" in found.summary() and len(found.tables(9)) == 2


def test_a_broken_file_is_counted_and_named(run: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "val")
    (tmp_path / "val" / "lamp" / "03.npz").write_bytes(b"PK")
    found: Any = vitrail.evaluate(run, tmp_path, split="val", bad="skip")
    assert (found.samples, found.skipped_names) == (23, ("val/lamp/03.npz",))
    assert found.summary().endswith(" 1 cloud cannot be used and is left out: val/lamp/03.npz.")
    assert found.facts()["left out"] == "1 unusable: val/lamp/03.npz"
    assert find_task("parts").read_evaluation(json.loads(json.dumps(found.to_dict()))) == found


def test_prediction_gives_a_part_for_each_point(run: Path, data: Path, tmp_path: Path) -> None:
    [found] = vitrail.predict(run, data / "lamp" / "03.npz")
    assert found.parts.shape == (64,) and sum(found.shares().values()) == pytest.approx(1)
    assert found.to_dict()["points"] == 64 and found.draw().size == (480, 480) and "part 0" in str(found)
    [path] = found.save(tmp_path)
    saved = read_cloud(path)
    assert np.allclose(saved.points, found.points, atol=1e-6) and np.array_equal(saved.parts, found.parts)
    (tmp_path / "bad.off").write_text("OFF\n")
    [broken] = vitrail.predict(run, tmp_path / "bad.off")
    assert broken.error and broken.save(tmp_path) == []
    with pytest.raises(DataError):
        broken.shares()


def test_figures_are_those_of_a_loop() -> None:
    logits, labels = torch.randn(3, 20, 4), torch.randint(0, 3, (3, 20))  # part 3 never occurs
    metric = PartMetric(4)
    for rows in (slice(0, 2), slice(2, 3)):
        metric.update((logits[rows],), PointBatch(torch.zeros(1), labels[rows], torch.zeros(1)))
    said, found = logits.argmax(-1).flatten().tolist(), metric.compute()
    truth, ious = labels.flatten().tolist(), []
    for part in range(3):
        both = sum(t == part and p == part for t, p in zip(truth, said, strict=True))
        either = sum(t == part or p == part for t, p in zip(truth, said, strict=True))
        ious.append(both / either)
    assert found["miou"] == pytest.approx(sum(ious) / 3)
    assert found["accuracy"] == pytest.approx(np.mean([t == p for t, p in zip(truth, said, strict=True)]))
    assert found["loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()
    )
    assert metric.ious()[3] == 0.0 and PartMetric(2).ious() == [None, None]


def test_parts_follow_their_points() -> None:
    mesh = SHAPES["lamp"]()
    for method in ("uniform", "farthest"):
        points, parts = sampled_parts(mesh, PointSampling(200, method), still(0))
        assert torch.equal(points, sampled(mesh, PointSampling(200, method), still(0)))
        assert parts is not None
        heights = [points[parts == part][:, 2] for part in range(3)]  # foot, pole, shade
        assert heights[0].max() <= heights[2].min() and heights[0].mean() < heights[1].mean() < heights[2].mean()


def test_parts_are_permuted_with_the_points() -> None:
    model = create_model("pointnet_parts", dim=8, global_dim=16, num_classes=3).eval()
    points, order = torch.randn(2, 30, 3), torch.randperm(30)
    assert torch.allclose(model(points[:, order]), model(points)[:, order], atol=1e-6)


def test_data_without_parts_and_models_of_other_tasks(data: Path, tmp_path: Path, capsys) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(3):
            (tmp_path / label / f"{number}.xyz").write_text("0 0 0\n1 0 0\n")
    assert main(["train", str(tmp_path), *WORDS, "--set", *SMALL, "--out", str(tmp_path / "r")]) == 3
    assert "has no parts" in capsys.readouterr().err
    for model in ("pointnet", "vit_tiny_patch16_224"):
        assert main(["train", str(data), *WORDS, "--model", model, "--out", str(tmp_path / "r")]) == 2
        assert "no model of the task parts" in capsys.readouterr().err
    with pytest.raises(VitrailError, match="does not find parts"):
        find_task("parts").predictor(create_model("pointnet", dim=8, global_dim=16), None, 1)
