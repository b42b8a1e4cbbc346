"""Translation: training with resume, the beam in every batch, figures against sacreBLEU, robust lines."""

import base64
import io
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vitrail
from vitrail.cli import main
from vitrail.generation import exact
from vitrail.tasks.results import Viewer
from vitrail.tasks.text_sources import TextLine
from vitrail.tasks.translate.alignment import align, alignment_page, cross_attention
from vitrail.tasks.translate.bleu import bleu_score, bleu_sums, corpus_bleu, tokenize_13a
from vitrail.tasks.translate.decoding import greedy
from vitrail.tasks.translate.options import PredictOptions
from vitrail.tasks.translate.predictor import TranslationPredictor
from vitrail.tasks.translate.scoring import score_translations
from vitrail.tasks.translate.translator import Translator
from vitrail.training.config import RunConfig, config_class
from vitrail.training.log import read_log
from vitrail.training.signals import Interrupted, StopRequest
from vitrail.training.train import train

NOUNS = {"cat": "Katze", "dog": "Hund", "bird": "Vogel", "man": "Mann"}
VERBS = {"sees": "sieht", "likes": "mag", "hears": "hört"}


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    draw, found = random.Random(seed), []
    for _ in range(count):
        a, b, v = draw.choice(list(NOUNS)), draw.choice(list(NOUNS)), draw.choice(list(VERBS))
        more = f" and {draw.choice(list(NOUNS))}" if draw.random() < 0.5 else ""
        found.append((f"a {a} {v} a {b}{more}.", f"ein {NOUNS[a]} {VERBS[v]} ein {NOUNS[b]}"))
        found[-1] = (found[-1][0], found[-1][1] + (f" und {NOUNS[more[5:]]}" if more else "") + ".")
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    for seed, (split, count) in enumerate((("train", 240), ("val", 16), ("test", 16))):
        for side, language in enumerate(("en", "de")):
            text = "\n".join(pair[side] for pair in sentences(count, seed))
            (folder / f"{split}.{language}").write_text(text + "\n", encoding="utf-8")
    return folder


def config(data: Path, out: Path, **changes: Any) -> RunConfig:
    usual: dict[str, Any] = {
        "data": str(data),
        "source": "en",
        "target": "de",
        "vocab_size": 300,
        "batch": 512,
        "epochs": 8,
        "lr": 1e-2,
        "set": ("dim=32", "depth=1", "num_heads=2", "hidden=64", "dropout=0.1", "norm=pre"),
        "precision": "fp32",
        "average": 2,
        "save_seconds": 0,
        "beta2": 0.98,
        "scheduler": "inverse_sqrt",
        "out": str(out),
    }
    return config_class("translate")(**{**usual, **changes})


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("translate") / "run"
    train(config(data, folder))
    return folder


@pytest.fixture(scope="module")
def model(run: Path) -> Any:
    return vitrail.load_model(run / "weights" / "best")


def test_it_learns_and_reports(run: Path) -> None:
    rows, summary = read_log(run / "metrics.jsonl", "epoch"), json.loads((run / "summary.json").read_text())
    assert rows[-1]["bleu"] > 0.2 > rows[0]["bleu"] and summary["bleu"] > 0.2 and summary["task"] == "translate"
    assert main(["train", "--help"]) == 0
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert "tok:13a" in evaluation["figures"]["signature"] and len(evaluation["worst"]) == 16
    assert evaluation["languages"] == ["en", "de"]


def test_a_killed_run_ends_in_the_same_bits(data: Path, run: Path, tmp_path: Path) -> None:
    class StopLater(StopRequest):
        """Stops after a number of questions."""

        left = 40

        @property
        def code(self) -> int:
            type(self).left -= 1
            return 130 if type(self).left < 0 else 0

        @code.setter
        def code(self, value: int) -> None: ...

    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(config(data, folder), stop=StopLater())
    train(replace(config(data, folder), out=None, resume=str(folder)))
    for name in ("best", "last"):
        wanted, got = (load_file(each / "weights" / name / "model.safetensors") for each in (run, folder))
        assert all(torch.equal(wanted[key], got[key]) for key in wanted), name


def test_the_same_alone_and_in_any_batch(model: Any) -> None:
    translator = Translator(model, PredictOptions(beam=4))
    texts = [pair[0] for pair in sentences(12, 9)] + ["", "a", "a cat " * 30]
    together = translator(texts)
    plain = Translator(model, PredictOptions(beam=4, decode="torch"))(texts)
    assert translator.decoder.precision == "fp32" and [one.tokens for one in plain] == [one.tokens for one in together]
    assert [translator([text])[0].tokens for text in texts] == [each.tokens for each in together]
    assert [each.tokens for each in translator(texts[::-1])][::-1] == [each.tokens for each in together]


def test_beam_one_is_greedy_and_exact_is_no_worse(model: Any) -> None:
    texts = [pair[0] for pair in sentences(4, 10)]
    beam = Translator(model, PredictOptions(beam=1, length_penalty=0.0))
    ids = [each.source for each in beam(texts)]
    found = greedy(model, ids, beam.start, beam.end, most=26)
    fixed = greedy(model, ids, beam.start, beam.end, most=26, steps=26)
    assert found == fixed == [list(each.tokens[:-1]) for each in beam(texts)]
    proved = Translator(model, PredictOptions(beam=1, length_penalty=0.0), exact=True)(texts[:1])[0]
    assert proved.certified and proved.score >= beam(texts)[0].score


def test_an_exact_search_at_its_limit_says_so_and_shows_its_progress(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[float] = []

    @contextmanager
    def bar(title: str, total: int) -> Iterator[Callable[[float], None]]:
        assert (title, total) == ("exact search: prefixes", exact.LIMIT)
        yield shown.append

    monkeypatch.setattr("vitrail.cli.progress.progress_bar", bar)
    words = ["translate", str(run), "a cat sees a dog.", "a man.", "--length-penalty", "0", "--exact", "--scores"]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\tcertified\t") == 2 and "not proved" not in captured.err
    assert shown[0] == 1 and shown.count(1) == 2
    cut = partial(exact.exact_search, limit=1)
    monkeypatch.setattr("vitrail.tasks.translate.decoding.exact_search", cut)
    assert main([*words[:2], "a dog sees a cat and a man sees it", *words[4:]]) == 0
    captured = capsys.readouterr()
    assert "\topen\t" in captured.out
    assert "warning: line 1: this is the best translation found so far, not proved" in captured.err
    assert f"{exact.LIMIT:,} prefixes" in captured.err


def test_the_help_names_the_limit_of_the_exact_search(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", "--help"]) == 0
    assert f"{exact.LIMIT:,}prefixes" in "".join(capsys.readouterr().out.replace("│", "").split())  # wrapped anywhere


def test_lines_in_lines_out(
    model: Any, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["a cat sees a dog.", "", "\0a\u2028dog", "a" * 1_000_000, "\u202eשלום e" + "\u0301" * 10_000, "a man."]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
    assert main(["translate", str(run), "--beam", "2", "--batch", "4"]) == 0
    captured = capsys.readouterr()
    found = captured.out.split("\n")
    assert (
        len(found) == 7 and found[1] == "" and found[0] == Translator(model, PredictOptions(beam=2))(lines[:1])[0].text
    )
    assert "line 4 was cut by 999," in captured.err
    assert main(["translate", str(run), "a \ud800 cat"]) == 0
    assert "1 characters that are not Unicode" in capsys.readouterr().err


def test_alignment_of_every_head(model: Any, run: Path, tmp_path: Path) -> None:
    translator, text = Translator(model, PredictOptions()), "a cat sees a </script>"
    translated = translator([text])[0]
    found = align(translator, text, translated)
    assert found.maps.shape == (1, 2, len(translated.tokens), len(translated.source))
    torch.testing.assert_close(found.maps.sum(dim=-1), torch.ones(found.maps.shape[:-1]))
    page = alignment_page([found], "m")
    assert page.count("</script>") == 2 and "://" not in page
    assert main(["translate", str(run), text, "--alignment", str(tmp_path / "page.html")]) == 0
    assert "Cross-attention" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert main(["explain", str(run), "--text", text, "--out", str(tmp_path / "explained")]) == 0
    assert "Cross-attention" in (tmp_path / "explained" / "index.html").read_text(encoding="utf-8")


def test_a_viewer_gets_tokens_and_every_head(model: Any) -> None:
    predictor = TranslationPredictor(model, PredictOptions())
    lines = [TextLine("a", "a cat sees a dog."), TextLine("b", " ")]
    result, empty = predictor.predict([(line, line.text) for line in lines])
    shown, found = (
        predictor.view(result),
        align(predictor.translator, lines[0].text, predictor.translator([lines[0].text])[0]),
    )
    assert isinstance(predictor, Viewer) and tuple(shown["target"]) == found.target and shown["heads"] == 2
    levels = np.frombuffer(base64.b64decode(shown["maps"]), np.uint8).reshape(found.maps.shape)
    assert np.abs(levels / 255 - found.maps.numpy()).max() < 1 / 500
    assert predictor.view(empty)["target"] == []


def test_cross_attention_by_hand(model: Any) -> None:
    source, target = (5, 6, 7, 2), (1, 8, 9)
    maps = cross_attention(model, source, target)
    block = next(iter(model.decoder.blocks))
    seen: list[Any] = []
    hook = block.cross_mixer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    with torch.no_grad():
        memory = model.encode(torch.tensor([source]))
        model(torch.tensor([source]), torch.tensor([target]))
        q = block.cross_mixer.q(seen[0])[0].unflatten(-1, (2, 16))
        k = block.cross_mixer.kv(memory)[0, :, :32].unflatten(-1, (2, 16))
    hook.remove()
    for head in range(2):
        want = (q[:, head] @ k[:, head].T / 4.0).softmax(dim=-1)
        torch.testing.assert_close(maps[0, head], want, rtol=1e-4, atol=1e-5)


def test_bleu_equals_sacrebleu() -> None:
    metrics = pytest.importorskip("sacrebleu.metrics")
    found = ["The cat's 3.5 km away, isn't it?", "A dog &amp; a man (2-3).", "x"]
    wanted = ["The cat is 3.5 km away, is it?", "A dog & a man (2-4) run.", "y z"]
    ours = corpus_bleu(map(tokenize_13a, found), map(tokenize_13a, wanted))
    assert ours == pytest.approx(metrics.BLEU().corpus_score(found, [wanted]).score / 100, abs=1e-12)
    assert bleu_score(bleu_sums(["a"], ["b"])) == 0.0


def test_figures_of_papers() -> None:
    figures = score_translations(["Ein Hund läuft im Schnee."], ["ein hund läuft im schnee ."], "de")
    assert figures.bleu == pytest.approx(1.0) and figures.sacrebleu < 0.5 and "case:mixed" in figures.signature


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "{data}", "--task", "translate"], "--source is needed"),
        (["train", "{data}", "--task", "translate", "--source", "en", "--target", "fr"], "no language fr"),
        (["translate", "{run}", "x", "--beam", "0"], "beam is 0"),
        (["translate", "{run}", "x", "--file", "y"], "two inputs"),
        (["evaluate", "{run}", "{data}", "--testset", "test_2042"], "no lines for test_2042"),
    ],
)
def test_errors_are_sentences(
    words: list[str], message: str, data: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(data=data, run=run) for word in words]) in (2, 3)
    assert message in capsys.readouterr().err


def test_evaluate_writes_a_report(data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "report.html"
    assert main(["evaluate", str(run), str(data), "--beam", "2", "--report", str(page)]) == 0
    assert "sacreBLEU" in capsys.readouterr().out
    assert "BLEU by length" in page.read_text(encoding="utf-8") and "Worst sentences" in page.read_text(
        encoding="utf-8"
    )


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_as_one(data: Path, tmp_path: Path, parallel: str) -> None:
    words = [
        *("train", str(data), "--task", "translate", "--source", "en", "--target", "de", "--vocab-size", "300"),
        *("--set", "dim=32", "depth=1", "num_heads=2", "hidden=64", "dropout=0.0", "--batch", "512", "--epochs", "2"),
        *("--lr", "1e-2", "--precision", "fp32", "--average", "2", "--parallel", parallel),
    ]
    main([*words, "--out", str(tmp_path / "one")])
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "vitrail.cli", *words]
    subprocess.run([*launch, "--out", str(tmp_path / "two")], check=True, capture_output=True, timeout=300)
    one, two = (read_log(tmp_path / name / "metrics.jsonl", "epoch") for name in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        assert (a["val_loss"], a["bleu"]) == pytest.approx((b["val_loss"], b["bleu"]), rel=1e-3)
