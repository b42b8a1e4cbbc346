"""`vitrail predict` and `vitrail evaluate` as a user types them."""

import csv
import io
import json
from pathlib import Path

import pytest
import torch

import vitrail
from vitrail.cli import main
from vitrail.fused import auto_optimize as form
from vitrail.fused.optimize import optimize
from vitrail.machine import host_memory
from vitrail.tasks.classify.evaluate import open_split
from vitrail.tasks.evaluation_file import read_evaluation


@pytest.fixture(scope="module")
def model(tiny: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(vitrail.save_model(tiny, tmp_path_factory.mktemp("models") / "tiny"))


def test_one_image_gives_a_row_per_class(model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", model, str(folder / "a" / "0.png"), "--top", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["class", "probability"] and len(lines) == 4
    [answer] = vitrail.predict(model, folder / "a" / "0.png", top=3)
    assert [line.split()[:2] for line in lines[1:]] == [[label, f"{p:.1%}"] for label, p in answer.top()]


def test_freed_memory_is_reused(
    model: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    monkeypatch.setattr(host_memory, "disable_malloc_trim", lambda: said.append("kept"))
    assert main(["predict", model, str(folder / "a" / "0.png")]) == 0
    assert main(["evaluate", model, "digits", "--batch", "400"]) == 0
    assert said == ["kept", "kept"] and capsys.readouterr().out


def test_corrupt_images_give_exit_code_3_and_the_others_continue(
    model: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", model, str(folder)]) == 3
    out, err = capsys.readouterr()
    assert out.count(".png") == 4 and "2 of 6 inputs could not be read." in err
    assert "empty.jpg: the file is empty (0 bytes)" in err


def test_json_lines_and_csv_agree(model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", model, str(folder), "--json", "--top", "2"]) == 3
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(["predict", model, str(folder), "--csv", "--top", "2"]) == 3
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(objects) == len(rows) == 6
    for found, row in zip(objects, rows, strict=True):
        assert (found["path"], found.get("label", ""), found.get("error", "")) == (
            row["path"],
            row["label_1"],
            row["error"],
        )
        assert [each["label"] for each in found.get("top", [])] == [
            row[key] for key in ("label_1", "label_2") if row[key]
        ]


def test_a_job_resumes(model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder.parent / "answers.jsonl"
    words = ["predict", model, str(folder), "--out", str(out)]
    assert main(words) == 3
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    assert main(words) == 3
    err = capsys.readouterr().err
    assert out.read_bytes() == whole and "were there already" in err and f"remove {out}" in err
    assert main([*words, "--top", "2"]) == 2
    assert "holds answers of another job" in capsys.readouterr().err
    assert out.read_bytes() == whole


def test_a_job_keeps_its_precision(model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder.parent / "half.jsonl"
    words = ["predict", model, str(folder), "--out", str(out)]
    assert main([*words, "--precision", "bf16", "--no-optimize"]) == 3
    whole = out.read_bytes()
    assert "plain model in bf16: as asked\n" in capsys.readouterr().err
    assert {json.loads(line)["precision"] for line in whole.splitlines()} == {"bf16"}
    out.write_bytes(whole[: len(whole) // 2])
    assert main([*words, "--no-optimize"]) == 3  # goes on in bf16
    assert out.read_bytes() == whole
    capsys.readouterr()
    assert main([*words, "--precision", "fp32"]) == 2
    assert "holds predictions computed in bf16, and --precision is fp32" in capsys.readouterr().err
    assert main([*words, "--draft"]) == 2
    assert "other options that change predictions" in capsys.readouterr().err


def test_predict_is_fp32_by_default(
    model: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A clock decides whether the optimized model runs: results must not depend on it.
    asked: list[str] = []
    monkeypatch.setattr(form, "FEW", 0)
    monkeypatch.setattr(form.InferenceRunner, "_weigh", lambda *_: None)
    monkeypatch.setattr(
        form, "optimize", lambda model, precision: asked.append(precision) or optimize(model, precision)
    )
    assert main(["predict", model, str(folder)]) == 3
    assert main(["evaluate", model, "digits", "--batch", "400"]) == 0
    assert asked == ["fp32", "fp32"], capsys.readouterr().err


def test_a_resumed_int8_job_keeps_its_actual_precision(
    model: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder.parent / "int8.jsonl"
    words = ["predict", model, str(folder), "--out", str(out), "--precision", "int8", "--no-optimize"]
    assert main(words) == 3  # only the optimized model computes in int8
    whole = out.read_bytes()
    assert {json.loads(line)["precision"] for line in whole.splitlines()} == {"fp32"}
    out.write_bytes(whole[: len(whole) // 2])
    assert main(words) == 3 and out.read_bytes() == whole
    assert "plain model in fp32: as asked" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["answers.json", "answers.csv"])
def test_output_files_are_complete(model: str, folder: Path, name: str) -> None:
    out = folder.parent / name
    assert main(["predict", model, str(folder / "b" / "2.png"), "--out", str(out)]) == 0
    assert "2.png" in out.read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nothing.png"], "There is no image at 'nothing.png'"),
        (["PICTURES", "--json", "--csv"], "choose one"),
        (["PICTURES", "--top", "0"], "at least 1"),
        (["PICTURES", "--out", "answers.txt"], "Let it end in"),
        (["PICTURES", "--out", "no/such/answers.csv"], "no folder"),
        (["PICTURES", "--weights", "x.pt"], "leave --weights out"),
        (["PICTURES", "--labels", "no.txt"], "no file of class names"),
        (["PICTURES", "--topp", "3"], "Did you mean: --top"),
    ],
)
def test_invalid_options_are_refused(
    model: str, folder: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", model, *[str(folder) if word == "PICTURES" else word for word in words]]) == 2
    err = capsys.readouterr().err
    assert says in err and err.startswith("error: ") and len(err.splitlines()) <= 6


def test_evaluate_prints_and_writes(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, page = tmp_path / "evaluation.json", tmp_path / "page.html"
    words = ["--no-optimize", "--rows", "4", "--out", str(out), "--report", str(page)]
    assert main(["evaluate", model, "digits", *words]) == 0
    printed, told = capsys.readouterr()
    assert "precision" in printed and "plain model" in printed
    assert told.startswith("plain model in fp32: as asked")
    assert "cpu, fp32, plain model" in page.read_text(encoding="utf-8")
    result = read_evaluation(out)
    assert f"{result.top1.value:.2%}" in printed and "6 classes with a higher F1 are not shown" in printed
    assert result.samples == len(open_split("digits", "test")) and "Where the model looks" in page.read_text(
        encoding="utf-8"
    )
    assert main(["evaluate", model, "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["confusion"] == [list(row) for row in result.confusion]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["digits", "--split", "trian"], 2, "split"),
        (["digits", "--split", "all"], 2, "is split into"),
        (["no/such/data"], 2, "no/such/data"),
        (["digits", "--out", "no/such/folder/x.json"], 2, "no folder"),
    ],
)
def test_evaluate_refuses_invalid_options(
    model: str, words: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", model, *words]) == code
    assert says in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("predict", "evaluate"):
        assert main([verb, "--help"]) == 0
        out = capsys.readouterr().out
        assert "examples:" in out and f"vitrail {verb}" in out
