"""Several labels per image: tables, figures, training, thresholds."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score

from vitrail.cli import main
from vitrail.data.label_sets import open_label_sets
from vitrail.errors import DataError, VitrailError
from vitrail.tasks.multilabel.scores import average_precision, best_threshold, mean_ap, micro_f1


def write(folder: Path, rows: str, count: int = 48) -> Path:
    """Write images that are red, green, both or neither, and a table of them."""
    table = [rows.splitlines()[0]] if rows else ["path,labels"]
    for number in range(count):
        red, green = number % 2, number // 2 % 2
        Image.new("RGB", (16, 16), (255 * red, 255 * green, 90 + number)).save(folder / f"{number}.png")
        table.append(f"{number}.png,{';'.join(['red'] * red + ['green'] * green)}")
    (folder / "labels.csv").write_text("\n".join(table) + "\n")
    return folder / "labels.csv"


def test_tables_of_both_kinds_are_the_same(tmp_path: Path) -> None:
    one = open_label_sets(str(write(tmp_path, "path,labels", 8)), val_share=0.0).require("train")
    lines = ["file_name,green,red,split"] + [f"{n}.png,{n // 2 % 2},{n % 2},train" for n in range(8)]
    (tmp_path / "columns.csv").write_text("\n".join(lines))
    two = open_label_sets(str(tmp_path / "columns.csv"), val_share=0.0).require("train")
    rows = [{"image": f"{n}.png", "tags": ["red"] * (n % 2) + ["green"] * (n // 2 % 2)} for n in range(8)]
    (tmp_path / "lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    three = open_label_sets(str(tmp_path / "lists.jsonl"), val_share=0.0).require("train")
    assert one.classes == two.classes == three.classes == ("green", "red")
    for other in (two, three):
        assert one.ids == other.ids and (one.targets == other.targets).all()
    assert one.take([1, 3]).targets.tolist() == [[0.0, 1.0], [1.0, 1.0]] and one.digest() != one.take([0]).digest()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,labels\na.png,x\n", "no column of images"),
        ("path,a,b\na.png,1,2\n", "0 and 1"),
        ("path,labels\na.png,\n", "has no labels"),
        ("path,labels\na.png,x\na.png,y\n", "named before"),
        ("path,labels,split\na.png,x,foo\n", "split 'foo'"),
        ("path,labels\na.png,x,y\n", "more cells than columns"),
        ("path,a,a\na.png,1,0\n", "the column a twice"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises((DataError, VitrailError), match=said):
        open_label_sets(str(tmp_path / "t.csv"))


def test_figures_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 6, (40, 5)) / 5, rng.integers(0, 2, (40, 5))
    assert mean_ap(scores, truth) == pytest.approx(average_precision_score(truth, scores))
    half = np.full(5, 0.5)
    assert micro_f1(scores, truth, half) == pytest.approx(f1_score(truth, scores >= 0.5, average="micro"))
    assert (
        average_precision(scores[:, 0], np.zeros(40)) is None and best_threshold(scores[:, 0], np.zeros(40))[0] == 0.5
    )
    for column in range(5):
        at, best = best_threshold(scores[:, column], truth[:, column])
        tried = [f1_score(truth[:, column], scores[:, column] >= level) for level in np.unique(scores)]
        assert best == pytest.approx(max(tried)) == f1_score(truth[:, column], scores[:, column] >= at)


def test_a_model_is_trained_evaluated_and_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = write(tmp_path, "path,labels"), tmp_path / "run"
    flags = "--task multilabel --model vit_tiny_patch16_224 --imgsz 16 --epochs 8 --batch 12 --lr 5e-3 --augment none"
    sizes = "--set dim=16 depth=1 num_heads=2 patch_size=8 --balance weights --precision fp32"
    assert main(["train", str(table), *flags.split(), *sizes.split(), "--out", str(out)]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["map"] > 0.9 and (out / "report.html").exists()
    assert main(["evaluate", str(out), str(table), "--split", "val", "--out", str(tmp_path / "e.json")]) == 0
    figures = {one["name"]: one for one in json.loads((tmp_path / "e.json").read_text())["figures"]}
    assert set(figures) == {"red", "green"} and figures["red"]["best_f1"] > 0.9
    capsys.readouterr()
    chosen = ["--thresholds", str(tmp_path / "e.json")]
    assert main(["predict", str(out), str(tmp_path / "3.png"), str(tmp_path / "1.png"), "--json", *chosen]) == 0
    both, red = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert {one["label"] for one in both["labels"]} == {"red", "green"}
    assert [one["label"] for one in red["labels"]] == ["red"]
    assert main(["predict", str(out), str(tmp_path / "3.png"), "--thresholds", str(table)]) == 3
