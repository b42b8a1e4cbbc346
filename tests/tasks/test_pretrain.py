"""Masked pretraining: masks, pairs of lines, and fine-tuning from its folder."""

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
from vitrail.data.stateless_rng import BatchRng
from vitrail.data.text_streams import TextStream
from vitrail.data.token_windows import IGNORED
from vitrail.tasks.pretrain.masking import MaskedBatch, MaskRule
from vitrail.tasks.pretrain.segments import Frame, MaskedLineLoader, SegmentSet
from vitrail.tasks.pretrain.training import masked_scores
from vitrail.text.learning import learn_framed

LINES = [f"the {a} {b} runs over the {c} hill" for a in ("red", "old", "big") for b in ("fox", "dog", "cat")
         for c in ("green", "far", "high")]  # fmt: skip
SMALL = ("dim=32", "depth=1", "num_heads=2", "dropout=0.0", "max_length=40")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    place = tmp_path_factory.mktemp("pretrain")
    (place / "hills.txt").write_text("\n".join(LINES * 8) + "\n")
    words = ["train", str(place / "hills.txt"), "--task", "pretrain", "--set", *SMALL, "--vocab-size", "320"]
    words += ["--next-sentence", "--max-length", "40", "--epochs", "12", "--batch", "16", "--lr", "1e-2"]
    assert main([*words, "--precision", "fp32", "--out", str(place / "run")]) == 0
    return place / "run"


def test_it_learns_masked_words(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert summary["masked_accuracy"] > 0.4 and 0 <= summary["next_accuracy"] <= 1
    model = vitrail.load_model(run / "weights" / "best")
    assert (model.task, model.metadata["next_sentence"]) == ("pretrain", True)


def test_masks_are_filled(run: Path, capsys: Any) -> None:
    assert main(["predict", str(run), "--text", "the red fox runs over [MASK] green hill", "no mask"]) == 3
    printed = capsys.readouterr()
    assert "the " in printed.out and "has no [MASK]" in printed.err


def test_fine_tuning_starts_from_the_pretrained_encoder(run: Path, tmp_path: Path) -> None:
    rows = [f"{line}\t{int('fox' in line)}" for line in LINES]
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.tsv").write_text("\n".join(rows) + "\n")
    start = run / "weights" / "best"
    words = ["train", str(tmp_path), "--task", "sentiment", "--weights", str(start), "--epochs", "1", "--lr", "1e-12"]
    assert main([*words, "--min-lr", "0", "--precision", "fp32", "--out", str(tmp_path / "run")]) == 0
    before, after = (load_file(place / "model.safetensors") for place in (start, tmp_path / "run" / "weights" / "last"))
    shared = [name for name in before if name.startswith("backbone.")]
    assert shared and all(torch.allclose(before[name], after[name], atol=1e-6) for name in shared)


def test_shares_of_masks() -> None:
    ids = np.full((400, 50), 9)
    ids[:, 0], ids[:, 49] = 1, 2
    lengths = np.full(400, 50)
    rule = MaskRule(0.15, mask=3, words=1000, special=frozenset([1, 2, 3]))
    masked, targets = rule.apply(ids, lengths, BatchRng(0, 0, np.arange(400)))
    chosen = targets != IGNORED
    assert not chosen[:, [0, 49]].any() and chosen.any(axis=1).all()
    assert abs(chosen[:, 1:49].mean() - 0.15) < 0.01 and (targets[chosen] == 9).all()
    assert abs((masked[chosen] == 3).mean() - 0.8) < 0.03 and abs((masked[chosen] == 9).mean() - 0.1) < 0.02
    assert (masked[~chosen] == ids[~chosen]).all()
    again, _ = rule.apply(ids[:5], lengths[:5], BatchRng(0, 0, np.arange(5)))
    assert (again == masked[:5]).all()


@torch.no_grad()
@pytest.mark.parametrize("head", ["pretraining", "masked"])
def test_scores_of_the_masked_words_alone(head: str) -> None:
    model: Any = vitrail.create_model("bert_tiny", dim=16, depth=1, num_heads=2, vocab_size=30, head=head).eval()
    ids, lengths = torch.randint(0, 30, (3, 7)), torch.tensor([7, 4, 2])
    targets = ids.masked_fill(torch.rand(3, 7) < 0.5, IGNORED)
    zero = torch.zeros_like(lengths)
    batch = MaskedBatch(ids, lengths, ids * 0, targets, zero, zero)
    words, following = masked_scores(model, batch)
    whole = model(ids, batch.layout)
    every, after = whole if head == "pretraining" else (whole, torch.zeros(3, 2))
    torch.testing.assert_close(words[0], every[targets != IGNORED], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(following, after)
    assert torch.equal(batch.words[0], targets[targets != IGNORED])


def test_half_of_the_pairs_follow_each_other() -> None:
    text = "\n".join(f"line {number}" for number in range(200))
    vocabulary = learn_framed([text], 400, ("[CLS]", "[SEP]", "[MASK]"))
    dataset = SegmentSet(TextStream("lines train", text), vocabulary, 20)
    frame, rule = Frame(vocabulary.id_of("[CLS]"), vocabulary.id_of("[SEP]")), MaskRule(1e-9, 4, 10, frozenset([1, 2]))
    order = BucketedSampler([len(segment) for segment in dataset.segments], 32)
    loader = MaskedLineLoader(dataset, frame, rule, order, pairs=True, fixed=False)
    follow = []
    for batch in loader.epoch(1):
        original = torch.where(batch.targets == IGNORED, batch.ids, batch.targets)
        for row, number in enumerate(batch.index.tolist()):
            ids, second = original[row, : batch.lengths[row]], batch.segments[row, : batch.lengths[row]] == 1
            assert ids[~second].tolist() == [frame.first, *dataset.segments[number], frame.end]
            is_next = ids[second].tolist() == [*dataset.segments[(number + 1) % 200], frame.end]
            assert is_next == (batch.follows[row] == 0)
            follow.append(is_next)
    assert len(follow) == 200 and 0.4 < np.mean(follow) < 0.6
    whole, later = list(loader.epoch(1)), list(loader.epoch(1, 3))
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(whole[3:], later, strict=True))
