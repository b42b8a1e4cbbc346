"""Vectors of inputs, their files and neighbours, and probes on them."""

from pathlib import Path

import numpy as np
import pytest
import small_texts
import torch
from PIL import Image
from small_models import small
from torch import nn

import vitrail
from vitrail.cli import main
from vitrail.compress.binary_codes import BinaryCodes
from vitrail.errors import VitrailError
from vitrail.inference.embed import Embedded, embed, neighbours
from vitrail.inference.embedding_file import EmbeddingFile, read_embeddings
from vitrail.layouts import TokenSequence
from vitrail.tasks.classes.probe import cached_features, choose_strength, knn, linear_probe
from vitrail.tasks.features import ImageFeatures, feature_reader, pooled


@pytest.fixture(scope="module")
def saved(tiny: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(vitrail.save_model(tiny, tmp_path_factory.mktemp("models") / "tiny"))


@pytest.mark.parametrize("name", ["vit", "swin timm", "poolformer", "convnext"])
def test_the_head_on_the_vector_gives_the_logits(name: str) -> None:
    model = small(name).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model.head.linear(pooled(model, (images,))), model(images))


def test_every_small_model_has_vectors() -> None:
    for name in ("deit distilled", "cait", "xcit", "perceiver original", "crossvit"):
        with torch.inference_mode():
            assert pooled(small(name).eval(), (torch.rand(2, 3, 64, 64),)).ndim == 2, name
    ids, lengths = torch.randint(1, 50, (2, 9)), torch.tensor([9, 4])
    for name in ("bert classes", "bert vector", "gpt2", "lstm", "text_encoder"):
        model = small_texts.small(name)
        with torch.inference_mode():
            rows = pooled(model, (ids, TokenSequence(9, lengths=lengths)))
            alone = pooled(model, (ids[1:, :4], TokenSequence(4)))
        torch.testing.assert_close(rows[1:], alone, msg=name)  # padding changes nothing


def test_mean_and_first_token_are_those_of_the_features(tiny: nn.Module) -> None:
    images = torch.rand(2, 1, 16, 16)
    with torch.inference_mode():
        tokens = tiny.features(images).tokens
        torch.testing.assert_close(pooled(tiny, (images,), "mean"), tokens[:, 1:].mean(1))
        torch.testing.assert_close(pooled(tiny, (images,), "first"), tokens[:, 0])
        with pytest.raises(VitrailError, match="no class token"):
            pooled(small("swin timm").eval(), (torch.rand(1, 3, 64, 64),), "first")


def test_a_model_without_vectors_is_refused() -> None:
    with pytest.raises(VitrailError, match="no vector"):
        feature_reader(nn.Linear(2, 2))


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_a_folder_becomes_a_file_and_a_page(
    saved: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"v.{ending}"
    codes = tmp_path / "codes" / "codes.npz"
    assert main(["embed", saved, str(folder), "--out", str(out), "--neighbours", "2", "--codes", str(codes)]) == 3
    found, err = read_embeddings(out), capsys.readouterr().err
    binary, names = BinaryCodes.load(codes)
    assert names == found.names and binary.search(torch.tensor(found.vectors[:1]), k=1)[0].tolist() == [[0]]
    assert [Path(name).name for name in found.names] == ["0.png", "1.png", "2.png", "3.png"]
    assert "2 of 6 inputs could not be read." in err and not out.with_name(f".{out.name}.parts").exists()
    model = vitrail.load_model(saved)
    np.testing.assert_array_equal(embed(model, list(found.names)).vectors, found.vectors)
    page = out.with_suffix(".html").read_text()
    assert page.count("<h3>neighbours of") == 4 and page.count("<figcaption>") == 12
    assert main(["embed", saved, str(folder), "--out", str(out)]) == 3
    assert "4 were there already" in capsys.readouterr().err


def test_a_job_without_a_vector_names_the_first_reason(saved: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    assert main(["embed", saved, str(tmp_path / "table.parquet"), "--out", str(tmp_path / "v.npz")]) == 3
    assert "table.parquet: not an image in a format that is read" in capsys.readouterr().err


def test_a_killed_job_keeps_its_shards(tmp_path: Path) -> None:
    vectors = np.arange(10, dtype=np.float32).reshape(5, 2)
    names = [f"{i}.png" for i in range(5)]
    first = EmbeddingFile(tmp_path / "v.npz", "job", shard=2)
    for name, vector in zip(names[:3], vectors, strict=False):
        first.add(Embedded(name, vector))  # and then the process is killed
    with pytest.raises(VitrailError, match="another job"):
        EmbeddingFile(tmp_path / "v.npz", "other")
    second = EmbeddingFile(tmp_path / "v.npz", "job", shard=2)
    assert second.done == {"0.png", "1.png"}
    for name, vector in reversed(list(zip(names[2:], vectors[2:], strict=True))):
        second.add(Embedded(name, vector))
    assert second.finish(names).names == tuple(names)
    np.testing.assert_array_equal(read_embeddings(tmp_path / "v.npz").vectors, vectors)


def test_neighbours_equal_a_slow_search() -> None:
    vectors = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    for query, row in enumerate(neighbours(vectors, range(9), 3)):
        cosines = {
            i: float(vectors[i] @ vectors[query] / np.linalg.norm(vectors[i]) / np.linalg.norm(vectors[query]))
            for i in range(9)
            if i != query
        }
        assert [i for i, _ in row] == sorted(cosines, key=lambda i: -cosines[i])[:3]


def test_knn_equals_a_loop() -> None:
    torch.manual_seed(0)
    x, y, queries = torch.randn(20, 3), torch.arange(20) % 4, torch.randn(5, 3)
    for query, answer in zip(queries, knn(x, y, queries, k=6), strict=True):
        cosine = torch.cosine_similarity(x, query[None])
        votes = [0.0] * 4
        for i in cosine.argsort(descending=True)[:6].tolist():
            votes[int(y[i])] += float((cosine[i].double() / 0.07).exp())
        assert int(answer) == votes.index(max(votes))


def test_the_penalty_grows_with_the_noise() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    clear, noise = y[:, None] * 4.0 + rng.normal(size=(60, 1)), rng.normal(size=(60, 40))
    assert choose_strength(np.hstack([clear, noise]), y) < 1.0
    assert choose_strength(clear[:3], np.array([0, 1, 2])) == 1.0
    assert (linear_probe(clear, y, 1.0)(clear) == y).mean() > 0.9


def test_features_are_computed_once(tiny: nn.Module, greys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    reader = ImageFeatures(tiny)
    first = cached_features(reader, "weights", greys, 5)
    assert first.shape == (16, 24)
    monkeypatch.setattr(reader, "vectors", lambda group: pytest.fail("computed again"))
    torch.testing.assert_close(cached_features(reader, "weights", greys, 5), first)
    with pytest.raises(pytest.fail.Exception):
        cached_features(reader, "other weights", greys, 5)


def test_models_are_probed_in_one_table(
    saved: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    monkeypatch.setattr("vitrail.tasks.classes.probe.STRENGTHS", (0.1,))
    assert main(["probe", saved, saved, "digits", "--out", str(tmp_path / "p.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and "+0.0 (" in lines[2]
    assert main(["probe", "digits"]) == 2
    assert "a model and data are needed" in capsys.readouterr().err


def test_columns_of_a_probed_table_are_named(saved: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    monkeypatch.setattr("vitrail.tasks.classes.probe.STRENGTHS", (0.1,))
    for i in range(20):
        Image.new("L", (12, 12), 12 * i).save(tmp_path / f"{i}.png")
    (tmp_path / "t.csv").write_text("\n".join(["id,kind", *(f"{i}.png,{'ab'[i % 2]}" for i in range(20))]))
    (tmp_path / "sets.csv").write_text("\n".join(["image,labels", *(f"{i}.png,a;b" for i in range(20))]))
    columns = ["--image-column", "id", "--label-column", "kind"]
    assert main(["probe", saved, str(tmp_path / "t.csv"), *columns]) == 0
    assert main(["probe", saved, str(tmp_path / "t.csv"), *columns[:2]]) == 2
    assert main(["probe", saved, str(tmp_path / "sets.csv")]) == 2
    err = capsys.readouterr().err
    assert "Rename the right one to label" in err and "sets.csv has several labels for an image" in err
