"""Hostile texts for every task of text: a stated result or a clear error, truncation reported, time linear."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import pytest
import torch

import vitrail
from vitrail.cli import main
from vitrail.errors import VitrailError
from vitrail.explain.text_relevance import explain_text
from vitrail.inference.embed import embed
from vitrail.models import create_model
from vitrail.tasks.language.continuation import read_prompt
from vitrail.tasks.sentiment.word_effects import word_effects
from vitrail.text.learning import learn_framed, learn_vocabulary
from vitrail.text.vocabulary import Vocabulary
from vitrail.weights.folder import save_model

pytest.importorskip("tokenizers")

LINES = ["a joy to see", "truly great fun", "a bore of a film", "naïve Café 漢字 שלום"] * 4
EMPTY = ("", "  \t", "\u00a0\u2003")
SHORT = {
    "null": "a\x00joy",
    "surrogate": "lone " + chr(0xD800),
    "unknown": "Ω≈ç 🙂 \U000f0000",
    "right-to-left": "\u202eשלום\u202c ok",
    "byte order mark": "\ufeffa joy",
    "line separators": "a\u2028b\x0cc\x85d",
}
LONG = {
    "megabyte of words": "joy " * 250_000,
    "combining marks": "e" + "\u0301" * 10_000,
    "over-long": "a joy to see " * 100,
}
SIZES: dict[str, Any] = {"dim": 16, "depth": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def framed() -> Vocabulary:
    return learn_framed(LINES, 320, ("[CLS]", "[SEP]", "[MASK]"))


@pytest.fixture(scope="module")
def plain() -> Vocabulary:
    return learn_vocabulary(LINES, 320)


def built(variant: str, task: str, vocabulary: Vocabulary, **more: Any) -> Any:
    torch.manual_seed(0)
    model: Any = create_model(variant, **{**SIZES, "vocab_size": len(vocabulary), **more}).eval()
    model.task, model.inputs = task, vocabulary
    return model


@pytest.fixture(scope="module")
def models(framed: Vocabulary, plain: Vocabulary) -> dict[str, Any]:
    bert = {"max_length": 32, "num_classes": 2}
    translator = built("transformer_tiny_multi30k", "translate", plain, hidden=32)
    translator.metadata = {"max_length": 32}
    return {
        "sentiment": built("bert_tiny", "sentiment", framed, **bert, head="classes"),
        "vector": built("all_minilm_l6_v2", "vector", framed, **bert),
        "pretrain": built("bert_tiny", "pretrain", framed, **bert, head="masked"),
        "language": built("gpt2", "language", plain, max_length=32),
        "translate": translator,
    }


def check(result: Any, count: str) -> None:
    """Check that a result is one that can be written and printed."""
    assert result.error is None and getattr(result, count) >= 0
    json.dumps(result.to_dict(), ensure_ascii=False).encode()
    str(result).encode()
    result.draw()


@pytest.mark.parametrize(
    ("task", "count", "options"),
    [
        ("sentiment", "truncated", {}),
        ("language", "unread", {"tokens": 2}),
        ("translate", "truncated", {"beam": 2}),
    ],
)
def test_predictions_of_hostile_texts(models: dict[str, Any], task: str, count: str, options: dict[str, Any]) -> None:
    texts = {**SHORT, **LONG}
    results = dict(zip(texts, vitrail.predict(models[task], list(texts.values()), **options), strict=True))
    for name, result in results.items():
        check(result, count)
        assert (getattr(result, count) > 0) == (name in LONG), name
        assert result.replaced == (name == "surrogate")
        assert result.text == texts[name].replace(chr(0xD800), chr(0xFFFD))
    assert "not Unicode" in results["surrogate"].notes() and results["over-long"].notes()
    empty = vitrail.predict(models[task], list(EMPTY), **options)
    if task == "translate":
        assert [(result.error, result.translation) for result in empty] == [(None, "")] * len(EMPTY)
    else:
        assert [result.error for result in empty] == ["the text is empty"] * len(EMPTY)


def test_masks_in_hostile_texts(models: dict[str, Any]) -> None:
    short = [f"{text} [MASK]" for text in SHORT.values()]
    for result in vitrail.predict(models["pretrain"], short):
        assert result.error is None or "the model reads 32" in result.error
    for result in vitrail.predict(
        models["pretrain"], [f"{LONG[name]} [MASK]" for name in ("combining marks", "over-long")]
    ):
        assert "tokens; the model reads 32" in result.error
    found = vitrail.predict(models["pretrain"], [*EMPTY, "no mask"])
    assert [result.error for result in found] == ["the text is empty"] * 3 + ["the text has no [MASK] to fill"]


def test_vectors_of_hostile_texts(models: dict[str, Any]) -> None:
    found = embed(models["vector"], [*SHORT.values(), *LONG.values()])
    assert torch.from_numpy(found.vectors).isfinite().all() and len(found.vectors) == len(SHORT) + len(LONG)
    assert "3 of 9 texts were truncated, by " in found.notes and "1 characters are not Unicode" in found.notes
    assert embed(models["vector"], "a joy").notes == ""
    with pytest.raises(VitrailError, match="the text is empty"):
        embed(models["vector"], ["a joy", *EMPTY])


@pytest.mark.parametrize("name", ["null", "surrogate", "right-to-left", "over-long", "combining marks"])
def test_explanations_of_hostile_texts(models: dict[str, Any], name: str) -> None:
    text = {**SHORT, **LONG}[name]
    [result] = vitrail.predict(models["sentiment"], text, explain=True)
    check(result, "truncated")
    assert len(result.words) == len(text.split())
    assert len(explain_text(models["sentiment"], text)[0].words) == len(text.split())


def test_effects_of_words_do_not_depend_on_those_that_are_not_read(models: dict[str, Any]) -> None:
    text = "a joy to see " * 40
    whole = word_effects(models["sentiment"], text, 32)
    longer = word_effects(models["sentiment"], text * 50, 32)
    assert len(longer) == 50 * len(whole) and [word.effect for word in longer[:60]] == [
        word.effect for word in whole[:60]
    ]


def test_hostile_lines_of_commands(models: dict[str, Any], tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    save_model(models["language"], tmp_path / "model")
    words = ["generate", str(tmp_path / "model"), "--tokens", "2"]
    assert main([*words, "lone " + chr(0xDCFF)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("lone " + chr(0xFFFD)) and "1 characters are not Unicode" in printed.err
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\ncaf\xe9")))
    assert main([*words, "-"]) == 3 and "line 2, byte 5" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a joy " * 100)))
    assert main([*words, "-"]) == 0 and "tokens of the prompt are not read" in capsys.readouterr().err
    (tmp_path / "lines.txt").write_bytes(b"a joy\n\n \na\x00b\n")
    save_model(models["vector"], tmp_path / "vector")
    out = str(tmp_path / "v.npz")
    assert main(["embed", str(tmp_path / "vector"), str(tmp_path / "lines.txt"), "--out", out]) == 3
    assert "lines.txt:2: the text is empty" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["sentiment", "language", "translate", "pretrain"])
@pytest.mark.parametrize(
    ("content", "message"), [(b"\n\n \n", "empty|no text|no line|needed"), (b"a\xff\tb\n", "UTF-8")]
)
def test_hostile_files_are_refused_by_training(
    task: str, content: bytes, message: str, tmp_path: Path, capsys: Any
) -> None:
    path = tmp_path / ("a.tsv" if task in ("sentiment", "translate") else "a.txt")
    path.write_bytes(content)
    more = {"translate": ["--source", "en", "--target", "de"]}.get(task, [])
    assert main(["train", str(path), "--task", task, *more, "--out", str(tmp_path / "run")]) in (2, 3)
    error = capsys.readouterr().err
    assert re.search(message, error) and "Traceback" not in error, error


KINDS: dict[str, Callable[[int], str]] = {
    "words": lambda size: "joy " * (size // 4),
    "one word": lambda size: "a" * size,
    "marks": lambda size: "e" + "\u0301" * size,
    "null": lambda size: "\x00" * size,
    "lone surrogates": lambda size: chr(0xD800) * size,
    "lines": lambda size: "a\n" * (size // 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_time_is_linear_in_the_length(plain: Vocabulary, kind: str) -> None:
    """Four times the text takes about four times as long; the square would be sixteen."""

    def seconds(size: int) -> float:
        text, spent = KINDS[kind](size), []
        for _ in range(2):
            began = process_time()
            read_prompt(plain, text, 32)
            spent.append(process_time() - began)
        return min(spent)

    assert seconds(24_000) < 10 * seconds(6_000) + 0.02
