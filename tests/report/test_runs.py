"""`vitrail runs`: a table, the differences of configs, curves on one page."""

import json
from pathlib import Path

import pytest
import yaml
from test_report import EVIL, Page

from vitrail.cli import main
from vitrail.report.run_comparison import comparison
from vitrail.report.runs import differences


def record(folder: Path, finished: bool = True, **config: object) -> Path:
    """Write a run folder as `vitrail train` does, without weights."""
    folder.mkdir(parents=True)
    values = {"task": "classify", "data": "digits", "model": "vit_tiny_patch16_224", "epochs": 2, **config}
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    rows = [{"kind": "step", "step": i + 1, "epoch": i // 2, "loss": 2.0 - i / 4, "lr": 1e-3} for i in range(4)]
    rows += [
        {"kind": "epoch", "step": 2 * n, "epoch": n, "train_loss": 1.5, "val_loss": 1.0, "top1": 0.4 + n / 10}
        for n in (1, 2)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        summary = {"model": values["model"], "top1": 0.75, "split": "test", "seconds": 90.0}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    one = record(tmp_path / "runs" / "classify" / "one")
    return one, record(tmp_path / "runs" / "classify" / "two", finished=False, lr=0.5, set=["dim=48"])


def test_the_table_shows_finished_and_unfinished_runs(two, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (two[1].parent / "broken").mkdir()
    for name in ("config.yaml", "metrics.jsonl"):
        (two[1].parent / "broken" / name).write_text("{[")
    (two[1].parent / "broken" / "config.yaml").write_text("a: [")
    assert main(["runs", str(tmp_path / "runs"), "--sort", "best"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "75.0%" in lines[2] and "test" in lines[2] and "finished" in lines[2] and "1 min 30 s" in lines[2]
    assert "60.0%" in lines[3] and "epoch 2 of 2" in lines[3]
    assert "is not YAML" in lines[1]
    assert main(["runs", str(two[0].parent), "--json", "--task", "classify"]) == 0
    assert {Path(row["folder"]).name for row in json.loads(capsys.readouterr().out)} == {"one", "two"}


def test_diff_names_the_fields_that_differ(two, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "diff", *map(str, two)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines[1:]} == {"set", "lr"}
    assert differences([{}, {"lr": None}]) == []  # a default that is not stated is the same
    assert main(["runs", "diff", str(two[0])]) == 2
    assert main(["runs", "diff", str(two[0]), str(two[0].parent)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_the_page_has_a_chart_a_metric_and_is_self_contained(two, tmp_path: Path) -> None:
    evil = record(tmp_path / "evil", data=EVIL)
    out = tmp_path / "page.html"
    assert main(["runs", "compare", *map(str, two), str(evil), "--out", str(out)]) == 0
    page = Page(out.read_text())
    assert not page.open and not page.silent and "script" not in page.tags
    assert [address for address in page.addresses if not address.startswith("data:")] == []
    assert out.read_text().count('class="chart"') == 4  # two losses, top-1, learning rate
    assert EVIL in page.words and "dim=48" in page.words


def test_runs_of_other_tasks_share_their_losses(two, tmp_path: Path) -> None:
    other = record(tmp_path / "angle", task="restore", model="swinir_light_x2")
    assert comparison([two[0], other]).count('class="chart"') == 3


def test_a_folder_without_runs_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path)]) == 0 and "No runs" in capsys.readouterr().err
    assert main(["runs", str(tmp_path / "nowhere")]) == 2
