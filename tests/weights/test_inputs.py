"""Models of text and of images save and load with the file of their inputs; a new kind of inputs needs no new code."""

import json
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import small_texts
import torch
from small_models import small as small_image_model

import vitrail.models.swinir as swinir
from vitrail.errors import DataError, VitrailError
from vitrail.inputs import ModelInputs
from vitrail.models import create_model
from vitrail.parts.model import Model
from vitrail.preprocess import Preprocess
from vitrail.text.learning import learn_vocabulary
from vitrail.text.vocabulary import Vocabulary
from vitrail.weights.folder import load_model, save_model
from vitrail.weights.manifest import verify, write_manifest

SWINIR: dict[str, Any] = {"dim": 12, "depths": (2, 1), "num_heads": 2, "window_size": 4}
TEXTS = ["bert", "bert classes", "albert", "convbert", "gpt2", "bilstm", "text_encoder", "transformer"]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return learn_vocabulary(["the cat sat on the mat", "a dog ran"], size=265)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_model_is_loaded_with_its_vocabulary(name: str, vocabulary: Vocabulary, tmp_path: Path) -> None:
    model = small_texts.small(name)
    model.inputs = vocabulary
    folder = save_model(model, tmp_path / "model")
    loaded = load_model(folder)
    ids = torch.randint(small_texts.VOCABULARY, (2, 5))
    with torch.no_grad():
        for a, b in zip(small_texts.answer(loaded, ids), small_texts.answer(model, ids), strict=True):
            assert torch.equal(a, b)
    assert loaded.inputs == vocabulary and loaded.task == model.task != "" and loaded.config == model.config
    assert contents(save_model(loaded, tmp_path / "again")) == contents(folder)
    assert Vocabulary((folder / "tokenizer.json").read_text()) == vocabulary
    assert f"{len(vocabulary)} tokens" in (folder / "README.md").read_text()


def test_a_text_model_without_a_vocabulary_is_saved_without_a_file(tmp_path: Path) -> None:
    folder = save_model(small_texts.small("gpt2"), tmp_path / "model")
    assert load_model(folder).inputs is None
    assert sorted(contents(folder)) == ["README.md", "config.json", "manifest.json", "model.safetensors"]


@pytest.mark.parametrize("name", ["swinir_classical_x2", "swinir_gray_jpeg"])
def test_a_restorer_has_no_file_of_inputs(name: str, tmp_path: Path) -> None:
    model = create_model(name, **SWINIR).eval()
    folder = save_model(model, tmp_path / "model")
    loaded, images = load_model(folder), torch.rand(1, model.config.in_channels, 9, 8)
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))
    assert loaded.task == "restore" and "preprocessor_config.json" not in contents(folder)
    assert contents(save_model(loaded, tmp_path / "again")) == contents(folder)


def test_labels_of_a_text_classifier_are_kept_and_counted(tmp_path: Path) -> None:
    model = small_texts.small("bert classes")
    assert load_model(save_model(model, tmp_path / "model", labels=("a", "b", "c"))).labels == ("a", "b", "c")
    with pytest.raises(VitrailError, match="2 labels for a model of 3"):
        save_model(model, tmp_path / "wrong", labels=("a", "b"))


@dataclass(frozen=True)
class Loudness(ModelInputs):
    """Inputs of a kind that the library does not know."""

    file: ClassVar[str] = "loudness.json"
    decibels: float = 0.0

    def to_text(self) -> str:
        return json.dumps({"decibels": self.decibels})

    @classmethod
    def from_text(cls, text: str) -> "Loudness":
        return cls(json.loads(text)["decibels"])

    def facts(self) -> dict[str, str]:
        return {"loudness": f"{self.decibels} dB"}


def test_a_new_kind_of_inputs_needs_one_class_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once as an attribute of the model's type, once as a field of its config."""
    monkeypatch.setattr("vitrail.parts.restorer.Restorer.inputs_type", Loudness)
    model = create_model("swinir_light_x2", **SWINIR).eval()
    folder = save_model(model, tmp_path / "model", inputs=Loudness(-3.5))
    assert load_model(folder).inputs == Loudness(-3.5) and "loudness.json" in verify(folder)["files"]
    assert "| loudness | -3.5 dB |" in (folder / "README.md").read_text()
    (folder / "notes.txt").write_text("private")
    assert set(write_manifest(folder)["files"]) == set(contents(folder)) - {"manifest.json", "notes.txt"}
    (folder / "loudness.json").unlink()
    with pytest.raises(DataError, match=r"loudness\.json is missing"):
        load_model(folder)

    @dataclass(frozen=True)
    class Config(swinir.SwinIRConfig):
        loudness: Loudness = Loudness()

    monkeypatch.setitem(swinir.VARIANTS, "swinir_light_x2", Config(**SWINIR))
    held = load_model(save_model(create_model("swinir_light_x2"), tmp_path / "held", inputs=Loudness(2.0)))
    assert held.inputs == Loudness(2.0) == held.config.loudness
    assert "loudness" not in json.loads((tmp_path / "held" / "config.json").read_text())["config"]


def test_inputs_of_another_type_are_refused(tmp_path: Path) -> None:
    for model, needed in [
        (small_image_model("vit"), "Preprocess"),
        (create_model("swinir_light_x2", **SWINIR), "none"),
    ]:
        with pytest.raises(VitrailError, match=f"Loudness; needed: {needed}"):
            save_model(model, tmp_path / "model", inputs=Loudness())
        assert not (tmp_path / "model").exists()


def test_damaged_inputs_are_named(vocabulary: Vocabulary, tmp_path: Path) -> None:
    for model, inputs in [(small_texts.small("gpt2"), vocabulary), (small_image_model("vit"), Preprocess())]:
        folder = save_model(model, tmp_path / "model", inputs=inputs)
        for damaged in (b"{", b"[1]", b"\xff\xfe"):
            (folder / inputs.file).write_bytes(damaged)
            write_manifest(folder)
            with pytest.raises(DataError, match=inputs.file):
                load_model(folder)


def test_inputs_are_values(vocabulary: Vocabulary) -> None:
    for inputs in (vocabulary, replace(Preprocess(), size=32)):
        assert pickle.loads(pickle.dumps(inputs)) == inputs == type(inputs).from_text(inputs.to_text())


def test_every_model_carries_the_same_attributes() -> None:
    for model in (
        small_texts.small("gpt2"),
        small_texts.small("transformer"),
        create_model("swinir_light_x2", **SWINIR),
    ):
        assert isinstance(model, Model) and model.variant and model.config and model.task
        assert model.kind.noun != "A model" and dict(model.metadata) == {} and model.labels is None
