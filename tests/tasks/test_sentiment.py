"""Sentence classification from table to report: readers, batches, resume, robustness, words that decided."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vitrail
from vitrail.cli import main
from vitrail.data.bucketed_sampler import BucketedSampler
from vitrail.data.text_tables import open_texts
from vitrail.errors import DataError, VitrailError
from vitrail.tasks.sentiment.training import _needed
from vitrail.tasks.sentiment.word_effects import word_effects
from vitrail.tasks.task import RunSpec
from vitrail.tasks.text_inputs import pad_ids, padded_layout
from vitrail.tasks.text_sources import find_lines

GOOD = ("a joy", "truly great fun", "warm and funny", "great acting here", "such a joy to see", "funny, warm and great")
BAD = ("a bore", "truly awful mess", "cold and dull", "awful acting here", "such a bore to see", "dull, cold and awful")
SMALL = ("dim=16", "depth=1", "num_heads=2", "dropout=0.1")
WORDS = ("--vocab", "words", "--epochs", "8", "--batch", "8", "--lr", "1e-2", "--precision", "fp32")


def table(folder: Path) -> Path:
    """Write a folder with three splits."""
    folder.mkdir()
    rows = [(f"{text} {i % 3 * 'indeed '}".strip(), label) for i in range(4) for label, texts in ((1, GOOD), (0, BAD))
            for text in texts]  # fmt: skip
    for name, part in (("train", rows), ("dev", rows[::2]), ("test", rows[1::3])):
        (folder / f"{name}.tsv").write_text("".join(f"{text}\t{label}\n" for text, label in part))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    place = tmp_path_factory.mktemp("sentiment")
    words = ["train", str(table(place / "films")), "--task", "sentiment", *WORDS, "--set", *SMALL, "--ema", "0.5"]
    assert main([*words, "--word-dropout", "0.1", "--out", str(place / "run")]) == 0
    return place / "run"


def test_it_learns_and_reports(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert summary["task"] == "sentiment" and summary["top1"] > 0.8 and summary["split"] == "test"
    page = (run / "report.html").read_text()
    assert "Worst errors" in page and "Class by class" in page
    model = vitrail.load_model(run / "weights" / "best")
    assert model.labels == ("0", "1") and model.metadata["max_length"] == 512
    assert model.inputs.encode(["a joy"]).ids[0][0] == model.inputs.id_of("<s>")


def test_sentences_have_vectors_neighbours_and_probes(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "lines.txt").write_text("\n".join([*GOOD, *BAD, ""]))
    out = tmp_path / "v.npz"
    assert main(["embed", str(run), str(tmp_path / "lines.txt"), "--out", str(out), "--neighbours", "2"]) == 0
    vectors = np.load(out)["vectors"]
    assert vectors.shape[0] == 12 and "a joy" in out.with_suffix(".html").read_text()
    capsys.readouterr()
    assert main(["probe", str(run), str(run.parent / "films"), "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert found["linear"]["value"] > 0.8 and found["knn"]["value"] > 0.8 and found["dim"] == vectors.shape[1]


def test_rows_that_cannot_be_used_are_counted_and_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{text},{label},{split}" for split in ("train", "val") for label, text in ((1, "a joy"), (0, "a bore"))]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["text,label,split", *rows, ",1,train", ",0,val", "a joy,,val", "a joy,1,vall"]) + "\n")
    assert main(["evaluate", str(run), str(path), "--split", "val"]) == 3
    assert "leave them out: --bad skip" in capsys.readouterr().err
    assert main(["evaluate", str(run), str(path), "--split", "val", "--bad", "skip", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["samples"], found["skipped"], found["skipped_names"]) == (2, 2, ["t.csv:7", "t.csv:8"])
    result = vitrail.evaluate(run, str(path), split="val", bad="skip")
    assert result.summary().endswith(" 2 sentences cannot be used and are left out: t.csv:7, t.csv:8.")
    data = open_texts(str(path), bad="skip")
    assert [problem.id for problem in data.skipped] == ["t.csv:6", "t.csv:7", "t.csv:8", "t.csv:9"]
    assert data.notes() == ["4 rows cannot be used and are left out, first t.csv:6: no text in this row."]


def test_padding_and_batch_do_not_change_the_output(run: Path) -> None:
    texts = ["a joy", "a bore " * 9, "great", "unheardof words only", "dull, cold"]
    whole = vitrail.predict(run, texts, batch=5)
    for result, text in zip(whole, texts, strict=True):
        [alone] = vitrail.predict(run, text)
        assert alone.label == result.label and abs(alone.probability - result.probability) < 1e-5


@pytest.mark.parametrize("variant", ["bilstm_sst", "bert_tiny"])
def test_other_classifiers_train(tmp_path: Path, variant: str) -> None:
    sizes = {"bilstm_sst": ("dim=8", "hidden=8"), "bert_tiny": ("dim=16", "depth=1", "num_heads=2", "max_length=12")}
    words = ["train", str(table(tmp_path / "films")), "--task", "sentiment", "--model", variant, "--vocab-size", "300"]
    assert main([*words, "--set", *sizes[variant], "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    [result] = vitrail.predict(tmp_path / "run", "a joy " * 30)
    assert (result.truncated > 0) == (variant == "bert_tiny") == ("cut off" in str(result))


def test_fine_tuning_takes_the_vocabulary_and_all_but_the_head(tmp_path: Path) -> None:
    films = str(table(tmp_path / "films"))
    sizes = ("dim=16", "depth=1", "num_heads=2", "max_length=12")
    words = ["train", films, "--task", "sentiment", "--batch", "16", "--precision", "fp32"]
    first = [*words, "--model", "bert_tiny", "--vocab-size", "300", "--set", *sizes, "--epochs", "1"]
    assert main([*first, "--out", str(tmp_path / "one")]) == 0
    start = str(tmp_path / "one" / "weights" / "last")
    assert main([*words, "--weights", start, "--lr", "1e-12", "--min-lr", "0", "--out", str(tmp_path / "two")]) == 0
    one, two = (load_file(tmp_path / name / "weights" / "last" / "model.safetensors") for name in ("one", "two"))
    for name in one:
        if name.startswith("backbone."):
            torch.testing.assert_close(one[name], two[name], atol=1e-6, rtol=0)
    models = [vitrail.load_model(tmp_path / name) for name in ("one/weights/last", "two/weights/last")]
    assert models[0].inputs == models[1].inputs


def test_a_pretrained_sentence_vector_goes_to_the_classifier(tmp_path: Path) -> None:
    from vitrail.tasks.text_models import load_trunk
    from vitrail.weights.folder import save_model

    sizes = {"dim": 16, "depth": 1, "num_heads": 2, "max_length": 12, "vocab_size": 30}
    pretrained = vitrail.create_model("bert_tiny", **sizes)
    classifier = vitrail.create_model("bert_tiny", **sizes, head="classes")
    save_model(pretrained, tmp_path / "bert")
    load_trunk(classifier, str(tmp_path / "bert"))
    for ours, theirs in ((classifier.head.pool, pretrained.head.next.pool), (classifier.backbone, pretrained.backbone)):
        for key, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[key])


def test_a_sentence_encoder_classifies_by_the_mean_of_its_tokens() -> None:
    run = RunSpec("", "all_minilm_l6_v2", None, {}, 0)
    bert = run._replace(variant="bert_tiny")
    runs = (run, bert, bert._replace(overrides={"head": "mean"}), bert._replace(overrides={"head": "masked"}))
    assert [_needed(each, 3)["head"] for each in runs] == ["mean", "classes", "mean", "classes"]
    sizes = {"dim": 16, "depth": 1, "num_heads": 2, "max_length": 12, "vocab_size": 30}
    model = vitrail.create_model("all_minilm_l6_v2", **sizes, **_needed(run, 3)).eval()
    ids, lengths = pad_ids([[1, 2, 3], [4]])
    with torch.no_grad():
        got, tokens = model(ids, padded_layout(ids, lengths)), model.backbone(ids[:, :3]).tokens
        alone = model.backbone(ids[1:, :1]).tokens[0, 0]
        want = torch.stack([tokens[0].mean(0), alone]) @ model.head.linear.weight.T + model.head.linear.bias
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    films = str(table(tmp_path / "films"))
    words = ["train", films, "--task", "sentiment", *WORDS, "--set", *SMALL, "--save-steps", "3", "--save-seconds", "0"]
    assert main([*words, "--epochs", "2", "--out", str(tmp_path / "whole")]) == 0
    from vitrail.training.config import RunConfig
    from vitrail.training.signals import Interrupted, StopRequest
    from vitrail.training.train import train

    config = RunConfig.from_dict({**_config(tmp_path / "whole"), "out": str(tmp_path / "cut")})
    stop = StopRequest()
    with pytest.raises(Interrupted):
        train(config, _StopAt(stop, 7), stop)
    train(RunConfig.from_dict({**_config(tmp_path / "cut"), "resume": "auto"}))
    files = [tmp_path / name / "weights" / "last" / "model.safetensors" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()


def _config(run: Path) -> dict[str, Any]:
    import yaml

    return yaml.safe_load((run / "config.yaml").read_text())


class _StopAt:
    """A reporter that requests a stop after some updates."""

    def __init__(self, stop: Any, step: int) -> None:
        self.stop, self.at = stop, step

    def step(self, stats: Any) -> None:
        if stats.step == self.at:
            self.stop.code = 130

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


def test_strange_texts_have_a_stated_result(run: Path) -> None:
    texts = ["joy " * 250_000, "a\x00joy", "lone " + chr(0xD800), "شكرا", "e" + chr(0x301) * 10_000, "\U0001f600"]
    results = vitrail.predict(run, [*texts, "", "  \t"])
    assert [result.error for result in results] == [None] * 6 + ["the text is empty"] * 2
    assert results[0].truncated == 250_001 - 512 and "tokens cut off" in str(results[0])
    assert (results[2].replaced, results[2].text[-1]) == (1, chr(0xFFFD))
    json.dumps([result.to_dict() for result in results]).encode()
    results[1].draw()


def test_inputs_of_the_command(run: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["predict", str(run), "--text", "a joy", "a bore"]) == 0
    assert "a joy" in capsys.readouterr().out
    (tmp_path / "lines.txt").write_text("great fun\n\ndull\r\n")
    assert main(["predict", str(run), str(tmp_path / "lines.txt"), "--csv"]) == 3
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].startswith("path,error,label_1") and rows[2].endswith("the text is empty,,,,,")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"warm\nawful\n")))
    assert main(["predict", str(run), "--json"]) == 0
    assert [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()] == ["stdin:1", "stdin:2"]
    assert main(["predict", str(run), "a joy"]) == 2
    assert "--text 'a joy'" in capsys.readouterr().err
    (tmp_path / "latin.txt").write_bytes(b"a\ncaf\xe9\n")
    assert main(["predict", str(run), str(tmp_path / "latin.txt")]) == 3
    assert "line 2, byte 5" in capsys.readouterr().err


def test_effects_of_words_are_differences_of_log_odds(run: Path, capsys: Any) -> None:
    model = vitrail.load_model(run / "weights" / "best")

    def log_odds(text: str, chosen: int) -> float:
        ids, lengths = pad_ids(model.inputs.encode([text]).ids)
        p = model(ids, padded_layout(ids, lengths)).double().softmax(1)[0, chosen]
        return float((p / (1 - p)).log().detach())

    text, chosen = "truly great fun", vitrail.predict(model, "truly great fun")[0].indices[0]
    effects = word_effects(model, text, 512)
    for i, word in enumerate(text.split()):
        without = " ".join(w for j, w in enumerate(text.split()) if j != i)
        assert effects[i].word == word
        assert effects[i].effect == pytest.approx(log_odds(text, chosen) - log_odds(without, chosen), abs=1e-3)
    assert max(effects, key=lambda each: each.effect or 0).word == "great"
    assert main(["predict", str(run), "--text", text, "--explain"]) == 0
    assert "[great +" in capsys.readouterr().out


def test_evaluation_counts_each_sentence_once(run: Path, tmp_path: Path) -> None:
    films = run.parent / "films"
    results = [vitrail.evaluate(run, films, batch=batch) for batch in (3, 64)]
    assert results[0].top1 == results[1].top1 and results[0].samples == 16
    assert results[0].calibration.nll == pytest.approx(results[1].calibration.nll, abs=1e-6)
    texts = open_texts(str(films)).require("test")
    right = [
        int(r.label) == label for r, label in zip(vitrail.predict(run, list(texts.texts)), texts.labels, strict=True)
    ]
    assert results[0].top1.value == pytest.approx(np.mean(right))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'text,label\n"good, very",pos\nbad,neg\n'),
        ("a.tsv", 'label\tsentence\npos\tsaid "fine\nneg\tbad\n'),
        ("a.jsonl", '{"text": "good", "label": "pos"}\n\n{"text": "bad", "label": "neg"}\n'),
    ],
)
def test_tables(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    texts = open_texts(str(tmp_path / name), val_share=0).require("train")
    assert texts.classes == ("neg", "pos") and texts.labels.tolist() == [1, 0]
    assert texts.texts[0] in ("good, very", 'said "fine', "good") and texts.ids[0].startswith(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("good\t1\n\t0\nbad\t0\n", "a.tsv:2: no text in this row"),
        ("good\tone\tmore\n", "needed: text and label"),
        ("good\t1\nfine\t1\n", "two are needed"),
        ("good\t1\ngood\tfun\t1\nbad\t0\n", "a.tsv:2: more cells than columns"),
        ("text\tlabel\tLabel\ngood\t1\t0\n", "the column label twice"),
    ],
)
def test_faults_of_tables_are_reported(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.tsv").write_text(content)
    with pytest.raises(DataError, match=message):
        open_texts(str(tmp_path / "a.tsv"))


def test_batches_of_like_length_hold_every_sample_once() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 101).tolist()
    whole = list(BucketedSampler(lengths, 8, seed=3).batches(2))
    assert sorted(np.concatenate(whole)) == list(range(101))
    assert all(np.ptp([lengths[i] for i in batch]) <= 8 for batch in whole)
    later = list(BucketedSampler(lengths, 8, seed=3).batches(2, start_step=5))
    assert all(map(np.array_equal, whole[5:], later))
    ranks = [list(BucketedSampler(lengths, 8, seed=3, rank=rank, world=3).batches(2)) for rank in range(3)]
    assert all(np.array_equal(np.concatenate(parts), batch) for *parts, batch in zip(*ranks, whole, strict=True))
    assert not np.array_equal(whole[0], next(BucketedSampler(lengths, 8, seed=3).batches(3)))


def test_missing_input_is_an_error() -> None:
    with pytest.raises(VitrailError, match="No text was given"):
        find_lines([])
    with pytest.raises(VitrailError, match="not a text"):
        find_lines(3)
