"""Parallel text: files a language, tables, JSON lines; and batches by tokens."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from vitrail.data.pair_files import open_pairs
from vitrail.data.token_batches import TokenBatches
from vitrail.errors import DataError, VitrailError

LENGTHS = np.random.default_rng(0).integers(1, 40, (300, 2))


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_bytes(text.encode())
    return folder


def test_only_newlines_end_a_line(tmp_path: Path) -> None:
    folder = write(tmp_path, train__en="a\u2028b\r\nc\x0cd\n", train__de="\ufeffe\nf")
    pairs = open_pairs(folder, val_share=0.0).require("train").pairs("en", "de")
    assert pairs.sources == ("a\u2028b", "c\x0cd") and pairs.targets == ("e", "f")
    assert pairs.ids == ("train:1", "train:2")


def test_folder_with_gz_and_test_sets(tmp_path: Path) -> None:
    folder = write(tmp_path, val__en="x", val__de="y", test_b__en="x", test_b__de="y", README__md="x")
    for language in ("en", "de"):
        (folder / f"train.{language}.gz").write_bytes(gzip.compress(b"one\ntwo\n"))
        (folder / f"test_a.{language}").write_text("z\n")
    data = open_pairs(folder)
    assert [name for name, _ in data] == ["train", "val", "test"] and list(data.tests) == ["test_a", "test_b"]
    assert data.test is data.tests["test_a"] and len(data.require("test_b")) == 1
    assert data.require("train").pairs("de", "en").sources == ("one", "two")


def test_tables(tmp_path: Path) -> None:
    write(tmp_path, named__tsv="de\ten\nHund\tdog\n", plain__tsv="dog\tHund\tCC-BY\n")
    write(tmp_path, flat__jsonl='{"en": "dog", "de": "Hund"}\n')
    write(tmp_path, nested__jsonl=json.dumps({"translation": {"de": "Hund", "en": "dog"}}))
    for name in ("named.tsv", "plain.tsv", "flat.jsonl", "nested.jsonl"):
        pairs = open_pairs(tmp_path / name, val_share=0.0).require("train").pairs("en", "de")
        assert (pairs.sources, pairs.targets) == (("dog",), ("Hund",)), name


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train__en": "a\nb\n", "train__de": "c\n"}, "2 lines of en and 1 of de"),
        ({"train__en": "a\n\n", "train__de": "c\nd\n"}, "1 of 2 pairs of .* an empty side: train:2"),
        ({"train__en": "a\n"}, "no parallel text"),
        ({"train__jsonl": "{]"}, "line 1, is not JSON"),
        ({"train__jsonl": '{"en": "a"}'}, "needs texts in two languages"),
        ({"train__tsv": "a\tb\nc\n"}, "line 2, has 1 columns"),
        ({"train__tsv": "en\tde\na\tb\tc\n"}, "line 2, has 3 columns; its first line names 2"),
        ({"train__tsv": "en\ten\na\tb\n"}, "names a language twice"),
    ],
)
def test_faults_are_reported(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_pairs(write(tmp_path, **files), val_share=0.0).require("train").pairs("en", "de")


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "train.en").write_bytes(b"a\n\xff\n")
    (tmp_path / "train.de").write_bytes(b"a\nb\n")
    with pytest.raises(DataError, match=r"train.en, line 2, is not UTF-8"):
        open_pairs(tmp_path)


def test_missing_languages_are_requested(tmp_path: Path) -> None:
    text = open_pairs(write(tmp_path, train__en="a", train__de="b"), val_share=0.0).require("train")
    for languages, message in (
        ((None, "de"), "--source is needed"),
        (("en", "fr"), "no language fr"),
        (("en", "en"), "both"),
    ):
        with pytest.raises(VitrailError, match=message):
            text.pairs(*languages)


def test_skip_leaves_empty_sides_out(tmp_path: Path) -> None:
    folder = write(tmp_path, train__en="a\n \nc\n", train__de="d\ne\nf\n")
    assert open_pairs(folder, 0.0, bad="skip").require("train").pairs("en", "de").ids == ("train:1", "train:3")


def test_equal_lines_are_held_out_together(tmp_path: Path) -> None:
    lines = "\n".join(str(number % 10) for number in range(40))
    data = open_pairs(write(tmp_path, train__en=lines, train__de=lines), val_share=0.3)
    train, val = (set(data.require(name).lines["en"]) for name in ("train", "val"))
    assert len(train) == 7 and len(val) == 3 and not train & val


def test_every_sample_once_within_the_budget() -> None:
    order = TokenBatches(LENGTHS, budget=200)
    for epoch in (0, 1):
        batches = list(order.batches(epoch))
        assert len(batches) == order.steps
        assert sorted(np.concatenate(batches)) == list(range(300))
        assert all(len(batch) * LENGTHS[batch].max() <= 200 for batch in batches)


def test_epochs_differ_and_resume() -> None:
    order = TokenBatches(LENGTHS, budget=200, seed=3)
    first, second = ([batch.tolist() for batch in order.batches(epoch)] for epoch in (0, 1))
    assert first != second and set(map(frozenset, first)) != set(map(frozenset, second))
    assert [batch.tolist() for batch in order.batches(1, start_step=5)] == second[5:]
    assert first == [batch.tolist() for batch in TokenBatches(LENGTHS, budget=200, seed=3).batches(0)]


def test_ranks_share_a_batch() -> None:
    whole = list(TokenBatches(LENGTHS, budget=200).batches(2))
    parts = zip(*(TokenBatches(LENGTHS, 200, rank=rank, world=3).batches(2) for rank in range(3)), strict=True)
    assert [np.concatenate(part).tolist() for part in parts] == [batch.tolist() for batch in whole]


def test_a_sample_above_the_budget_is_alone() -> None:
    assert [batch.tolist() for batch in TokenBatches(np.array([1, 9, 1]), 4, shuffle=False).batches()] == [[0, 2], [1]]
