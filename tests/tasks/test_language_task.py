"""Language modelling: windows, figures over the whole text, resume, streaming generation."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vitrail
from vitrail.cli import main
from vitrail.data.text_streams import TextStream, open_streams
from vitrail.data.token_windows import IGNORED, EvalWindows, TrainWindows
from vitrail.errors import DataError, VitrailError
from vitrail.models import create_model
from vitrail.tasks.language.continuation import generate_pieces, generate_text, stream_text
from vitrail.tasks.language.options import GenerateOptions
from vitrail.text.learning import learn_characters, learn_vocabulary
from vitrail.training.muon import orthogonal

TEXT = "the quick brown fox jumps over the lazy dog\nand goes to sleep, said café\n" * 60
SMALL = ("dim=32", "depth=1", "num_heads=2", "dropout=0.0")
WORDS = ("--context", "32", "--batch", "8", "--precision", "fp32", "--set", *SMALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    place = tmp_path_factory.mktemp("language")
    (place / "fox.txt").write_text(TEXT)
    words = ["train", str(place / "fox.txt"), "--task", "language", *WORDS, "--epochs", "8", "--optimizer", "muon"]
    assert main([*words, "--lr", "2e-2", "--out", str(place / "run")]) == 0
    return place / "run"


def test_it_learns_and_reports_nats_over_the_whole_text(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert summary["nats"] < 1.2 and summary["split"] == "val"
    assert summary["perplexity"] == pytest.approx(math.exp(summary["nats"]))
    assert "A sample" in (run / "report.html").read_text()
    model = vitrail.load_model(run / "weights" / "best")
    val = open_streams(str(run.parent / "fox.txt")).require("val")
    ids = torch.tensor(model.inputs.encode([val.text]).ids[0])
    total = 0.0
    for start in range(0, len(ids) - 1, 32):  # a slow loop over windows that do not overlap
        part = ids[start : start + 33]
        log_probs = model(part[None, :-1]).double().log_softmax(-1)[0]
        total -= float(log_probs.gather(1, part[1:, None]).sum().detach())
    assert summary["nats"] == pytest.approx(total / (len(ids) - 1), rel=1e-5)
    assert summary["bits_per_byte"] == pytest.approx(total / math.log(2) / len(val.text.encode()), rel=1e-5)
    words = len(val.text.split()) + val.text.count("\n")
    assert summary["word_perplexity"] == pytest.approx(math.exp(total / words), rel=1e-4)


def test_a_smaller_stride_gives_more_context_and_a_lower_loss(run: Path) -> None:
    plain, sliding = (vitrail.evaluate(run, run.parent / "fox.txt", split="val", stride=stride) for stride in (None, 4))
    assert plain.tokens == sliding.tokens and sliding.nats < plain.nats


@pytest.mark.parametrize(("length", "context", "stride"), [(50, 8, 8), (50, 8, 3), (9, 8, 4), (5, 8, 8), (17, 8, 8)])
def test_each_token_is_predicted_once(length: int, context: int, stride: int) -> None:
    for world in (1, 2):
        ranks = [EvalWindows(torch.arange(length), context, stride, 4, rank, world) for rank in range(world)]
        batches = [batch for windows in ranks for batch in windows.epoch()]
        targets = torch.cat([batch.targets.flatten() for batch in batches])
        assert sorted(targets[targets != IGNORED].tolist()) == list(range(1, length))
        for batch in batches:
            counted = batch.targets != IGNORED
            assert torch.equal(batch.ids[counted] + 1, batch.targets[counted])


def test_training_windows_cover_the_text_and_resume_anywhere() -> None:
    windows = TrainWindows(torch.arange(1000), 16, 4, seed=1)
    batches = list(windows.epoch(3))
    seen = torch.cat([batch.targets.flatten() for batch in batches])
    assert len(seen) == len(set(seen.tolist())) and len(batches) == windows.steps
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(batches[5:], windows.epoch(3, 5), strict=True))
    offsets = {int(next(windows.epoch(epoch)).ids[0, 0]) % 16 for epoch in range(8)}
    assert len(offsets) > 3


def test_a_resumed_run_ends_with_the_same_bits(run: Path, tmp_path: Path) -> None:
    words = ["train", str(run.parent / "fox.txt"), "--task", "language", *WORDS, "--optimizer", "muon"]
    assert main([*words, "--epochs", "1", "--save-steps", "6", "--out", str(tmp_path / "whole")]) == 0
    config = (tmp_path / "whole" / "config.yaml").read_text()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "config.yaml").write_text(config.replace("whole", "cut"))
    states = sorted((tmp_path / "whole" / "state").iterdir())
    assert len(states) >= 2
    import shutil

    for name in ("env.json", "metrics.jsonl", "results.csv"):
        shutil.copy(tmp_path / "whole" / name, tmp_path / "cut" / name)
    shutil.copytree(states[0], tmp_path / "cut" / "state" / states[0].name)
    assert main(["train", "--resume", str(tmp_path / "cut")]) == 0
    one, two = (load_file(tmp_path / name / "weights" / "last" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_generation_streams_the_same_text_for_a_seed(run: Path, capsys: Any) -> None:
    words = ["generate", str(run), "the quick", "--tokens", "80", "--seed", "4"]
    texts = []
    for _ in range(2):
        assert main(words) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and len(texts[0]) >= 90  # more than two windows
    assert main([*words, "--temperature", "0", "--out", str(run.parent / "text.txt")]) == 0
    assert (run.parent / "text.txt").read_text().startswith("the quick brown fox")


def test_ctrl_c_ends_the_text_and_keeps_it(run: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitrail.tasks.language.task import LanguageTask

    def pieces(*_: Any) -> Any:
        yield " brown"
        raise KeyboardInterrupt

    monkeypatch.setattr(LanguageTask, "generator", pieces)
    assert main(["generate", str(run), "the", "--out", str(run.parent / "cut.txt")]) == 130
    assert capsys.readouterr().out == "the brown\n" and (run.parent / "cut.txt").read_text() == "the brown"


def test_unfinished_characters_wait_for_their_bytes() -> None:
    vocabulary = learn_vocabulary(["abc"], 300)
    text = "naïve €5 \U0001f600 " * 12
    pieces = list(stream_text(vocabulary, iter(vocabulary.encode([text], special=False).ids[0])))
    assert "".join(pieces) == text and not any(chr(0xFFFD) in piece for piece in pieces)


def test_a_window_that_is_full_continues_with_new_draws() -> None:
    model = create_model("text_decoder_tiny", dim=16, depth=1, num_heads=2, vocab_size=30).eval()
    model.inputs = learn_characters("abcdefghijklmnopqrstuvwxyz")
    text = "".join(generate_text(model, "a", GenerateOptions(tokens=60, temperature=5.0), 8))
    assert len(text) >= 50 and text[7:14] != text[11:18]


def test_published_folders_generate_with_their_vocabulary(tmp_path: Path, capsys: Any) -> None:
    transformers = pytest.importorskip("transformers")
    vocabulary = learn_vocabulary([TEXT], 300)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_embd=16, n_layer=1, n_head=2, n_positions=64, vocab_size=len(vocabulary), bos_token_id=0, eos_token_id=0
    )
    peer = transformers.GPT2LMHeadModel(config).eval()
    peer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(vocabulary.to_json())
    assert main(["generate", str(tmp_path), "the quick", "--tokens", "10", "--temperature", "0"]) == 0
    ids = torch.tensor(vocabulary.encode(["the quick"]).ids)
    want = peer.generate(ids, max_new_tokens=10, do_sample=False, pad_token_id=0)[0].tolist()
    assert capsys.readouterr().out.rstrip("\n") == vocabulary.decode(want).rstrip("\n")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "test.txt").write_text(TEXT[:500])
    assert vitrail.evaluate(str(tmp_path), str(tmp_path / "text"), batch=4).context == 64


def test_texts_of_splits(tmp_path: Path) -> None:
    for name in ("wiki.train.tokens", "wiki.valid.tokens", "test.txt"):
        (tmp_path / name).write_text(f"{name}\n" * 3)
    found = open_streams(str(tmp_path))
    assert [split for split, _ in found] == ["train", "val", "test"]
    assert TextStream("x", "two words\n\n= h =\n").words == 8
    (tmp_path / "test.txt").write_text(" \n")
    with pytest.raises(DataError, match="is empty"):
        open_streams(str(tmp_path))
    with pytest.raises(VitrailError, match="There is no file"):
        open_streams(str(tmp_path / "none.txt"))
    with pytest.raises(DataError, match="smaller --context"):
        TrainWindows(torch.arange(20), 16, 4)


def test_other_models_are_refused(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    assert main(["train", str(tmp_path / "a.txt"), "--task", "language", "--model", "bert_tiny"]) == 2
    assert "vitrail models --task language" in capsys.readouterr().err


def test_orthogonal_keeps_the_singular_vectors() -> None:
    matrix = torch.randn(24, 10, generator=torch.manual_seed(0)).double()
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    values = torch.linalg.svdvals(orthogonal(matrix).double())
    assert values.min() > 0.6 and values.max() < 1.3
    inner = u.T @ orthogonal(matrix).double() @ v.T
    assert (inner - torch.diag(inner.diagonal())).abs().max() < 1e-3
    assert np.isfinite(orthogonal(torch.zeros(3, 4)).numpy()).all()


def test_pieces_are_the_text_with_the_probabilities_of_its_tokens() -> None:
    vocabulary = learn_characters(TEXT)
    model = create_model("text_decoder_tiny", dim=16, depth=1, num_heads=2, vocab_size=len(vocabulary)).eval()
    model.inputs = vocabulary
    options = GenerateOptions(tokens=12, temperature=0.7, seed=3)
    pieces = list(generate_pieces(model, "the ", options, 32, alternatives=3))
    assert "".join(piece.text for piece in pieces) == "".join(generate_text(model, "the ", options, 32))
    ids = vocabulary.encode(["the " + "".join(piece.text for piece in pieces)], special=False).ids[0]
    log_probs = model(torch.tensor([ids])).double().log_softmax(-1)[0].detach()
    for place, piece in enumerate(pieces, start=3):
        assert piece.probability == pytest.approx(math.exp(log_probs[place, ids[place + 1]]), rel=1e-4)
        assert [p for _, p in piece.alternatives] == pytest.approx(
            log_probs[place].exp().topk(3).values.tolist(), rel=1e-4
        )


@pytest.mark.shared
def test_wikitext_has_the_published_number_of_words(shared: Path) -> None:
    """Tokens of WikiText-2 as its paper counts them, an end for each line included."""
    found = open_streams(str(shared / "data" / "lm" / "wikitext-2"))
    assert {split: text.words for split, text in found} == {"val": 217_646, "test": 245_569}
