"""A second task, which lives in this folder alone, goes through every tool: no other file knows of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import angle
import pytest
import torch
from safetensors.torch import load_file

import vitrail
from vitrail.cli import main
from vitrail.data.datasets import open_dataset
from vitrail.tasks import TASKS, Modules, find_task
from vitrail.training.config import RunConfig, config_class
from vitrail.training.distributed import DataParallel
from vitrail.training.log import read_log
from vitrail.training.train import train

SMALL = {"set": ("dim=16", "depth=2", "num_heads=2", "patch_size=4"), "model": "vit_tiny_patch16_224"}


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(TASKS, "angle", Modules("angle", "angle"))
    yield


def config(out: Path, **changes: Any) -> RunConfig:
    usual: dict[str, Any] = {"data": "digits", "epochs": 3, "batch": 120, "precision": "fp32", "save_seconds": 0}
    return config_class("angle")(**{**usual, **SMALL, "out": str(out), **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    TASKS["angle"] = Modules("angle", "angle")
    folder = tmp_path_factory.mktemp("angle") / "run"
    train(config(folder, epochs=12, lr=5e-3, ema=0.5, grad_accum=2))
    del TASKS["angle"]
    return folder


def test_it_learns_and_lower_is_better(run: Path) -> None:
    rows = read_log(run / "metrics.jsonl", "epoch")
    summary = json.loads((run / "summary.json").read_text())
    best = [row["degrees"] for row in rows if row["best"]]
    assert best == sorted(best, reverse=True) and best[-1] == min(row["degrees"] for row in rows)
    assert summary["val_degrees"] == best[-1] < 0.9 * rows[0]["degrees"]
    assert summary["task"] == "angle" and summary["degrees"] > 0 and "top1" not in summary
    assert (run / "results.csv").read_text().startswith("step,epoch,train_loss,val_loss,degrees,lr,seconds,best\n")


def test_its_model_folder_names_the_task(run: Path) -> None:
    model = vitrail.load_model(run / "weights" / "best")
    assert (model.task, model.metadata["spread"]) == ("angle", 60.0)
    card = (run / "weights" / "best" / "README.md").read_text()
    assert "A model of the task angle" in card and "classif" not in card and "| degrees |" in card
    again = vitrail.save_model(model, run.parent / "again")
    assert (again / "config.json").read_bytes() == (run / "weights" / "best" / "config.json").read_bytes()


def test_it_stops_early(tmp_path: Path) -> None:
    summary = train(config(tmp_path / "run", epochs=50, patience=2, lr=1e-15, min_lr=0.0))
    rows = read_log(tmp_path / "run" / "metrics.jsonl", "epoch")
    assert len(rows) == max(i for i, row in enumerate(rows) if row["best"]) + 3 < 50
    assert summary.epochs == len(rows)


def test_micro_batches_of_different_weight_do_not_change_the_result(tmp_path: Path) -> None:
    for parts in (1, 3):
        train(config(tmp_path / str(parts), epochs=1, grad_accum=parts))
    one, three = (load_file(tmp_path / name / "weights" / "last" / "model.safetensors") for name in ("1", "3"))
    for name in one:
        if not name.endswith("qkv.bias"):  # the keys' bias moves no softmax: its gradient is rounding
            torch.testing.assert_close(one[name], three[name], atol=1e-4, rtol=1e-3)


def test_ranks_count_by_the_weight_of_their_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = DataParallel(torch.device("cpu"), rank=0, size=2)
    for mine, other in ((3.0, 3.0), (0.1, 0.1), (1.0, 3.0), (0.0, 4.0)):
        monkeypatch.setattr(
            ranks, "largest", lambda values, other=other: [max(values[0], other), max(values[1], -other)]
        )
        monkeypatch.setattr(ranks, "total", lambda own, other=other: own + other)
        assert ranks.weigh(mine) == (2 * mine / (mine + other), mine + other)


def test_killed_and_resumed_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    words = [*("--task", "angle", "digits", "--batch", "120", "--epochs", "3", "--precision", "fp32", "--spread", "40")]
    words += ["--model", SMALL["model"], "--set", *SMALL["set"], "--save-steps", "4", "--save-seconds", "0"]
    assert main(["train", *words, "--out", str(tmp_path / "whole")]) == 0
    code = "import angle, sys; from vitrail import tasks, cli; tasks.TASKS['angle'] = tasks.Modules('angle', 'angle')"
    command = [sys.executable, "-c", f"{code}; sys.exit(cli.main(sys.argv[1:]))", "train", *words]
    place = os.pathsep.join([str(Path(angle.__file__).parent), *sys.path])
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "killed")],
        env={**os.environ, "PYTHONPATH": place},
        stdout=subprocess.DEVNULL,
    )
    while not [*(tmp_path / "killed" / "state").glob("step-*")]:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "summary.json").exists()
    assert main(["train", "--resume", str(tmp_path / "killed")]) == 0
    for name in ("weights/last", "weights/best", "state/step-00000030"):
        whole, killed = (next((tmp_path / run / name).glob("*.safetensors")) for run in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes(), name
    rows = [read_log(tmp_path / run / "metrics.jsonl", "step") for run in ("whole", "killed")]
    assert rows[0] == rows[1]


def test_it_evaluates_predicts_and_reports(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    upright: Any = open_dataset("digits").require("test")
    for i, turn in enumerate((-40, 0, 40)):
        upright.image(i, "L").resize((32, 32)).rotate(turn).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"no image")
    assert main(["predict", str(run), str(tmp_path), "--json", "--digits", "2"]) == 3
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(result) for result in results] == [{"path", "angle"}] * 3 + [{"path", "error"}]
    assert results[0]["angle"] < results[2]["angle"]
    assert main(["predict", str(run), str(tmp_path / "0.png"), "--out", str(tmp_path / "out.jsonl")]) == 0
    assert vitrail.predict(run, tmp_path / "0.png", digits=2)[0].angle == results[0]["angle"]

    page, figures = tmp_path / "page.html", tmp_path / "figures.json"
    assert main(["evaluate", str(run), "digits", "--report", str(page), "--out", str(figures)]) == 0
    assert "off by" in capsys.readouterr().out
    evaluation = vitrail.evaluate(run, "digits")
    assert json.loads(figures.read_text()) == evaluation.to_dict()
    kept = json.loads((run / "summary.json").read_text())
    assert kept["degrees"] == pytest.approx(evaluation.degrees, rel=1e-6)
    assert f"Off by {evaluation.degrees:.1f}°" in page.read_text()
    from vitrail.report.html_page import write_report

    report = write_report(run).read_text()
    assert "Mean error" in report and "Top-1" not in report and "Confusion" not in report


def test_help_lists_its_flags_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--task", "angle", "--help"]) == 0
    page = capsys.readouterr().out
    assert "rotation options" in page and "--spread" in page and "--mixup" not in page
    assert main(["train", "digits", "--task", "angel"]) == 2
    assert "angle" in capsys.readouterr().err
    assert find_task("angle").metrics[0].format(2.5) == "2.50°"
