"""Checkpoints of training scripts: NumPy numbers, losses, averages and second networks besides a model."""

import random
from collections import defaultdict
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch

import vitrail
from vitrail.errors import DataError
from vitrail.weights.convert import convert
from vitrail.weights.from_checkpoint import from_checkpoint
from vitrail.weights.load import load_weights

NAME = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def state():
    return vitrail.create_model(NAME, num_classes=3, depth=1, dim=24).state_dict()


def prefixed(prefix: str, state) -> dict:
    return {prefix + key: value for key, value in state.items()}


def read(content, tmp_path):
    torch.save(content, tmp_path / "f.pth")
    return from_checkpoint(tmp_path / "f.pth", NAME, num_heads=3)


def same(got, state) -> bool:
    return all(torch.equal(value, got.model.state_dict()[key]) for key, value in state.items())


def test_numbers_of_numpy_are_data(state, tmp_path):
    numbers = {"best": np.float64(81.2), "loss": np.float32(3), "epochs": np.arange(5), "ok": np.bool_(True)}
    numpy_state = np.random.RandomState(0).get_state()
    randomness = {"numpy": numpy_state, "python": random.getstate(), "metrics": defaultdict(list)}
    assert same(read({"model": state, **numbers, **randomness, "name": np.array(["x", "yy"])}, tmp_path), state)


@pytest.mark.parametrize("value", [np.array([None, [1]], dtype=object), PurePosixPath("x"), torch.nn.ReLU()])
def test_objects_are_refused_without_escapes(value, state, tmp_path):
    with pytest.raises(DataError) as raised:
        read({"model": state, "extra": value}, tmp_path)
    text = str(raised.value)
    assert "\x1b" not in text and len(text.splitlines()) <= 6 and "state_dict()" in text


@pytest.mark.parametrize(
    ("content", "left"),
    [
        (lambda s: {"state_dict": {**prefixed("model.", s), "criterion.weight": torch.ones(3)}}, "criterion.weight"),
        (lambda s: {"model": s, "model_ema": {"n_averaged": torch.tensor(3), **prefixed("module.", s)}}, "n_averaged"),
        (lambda s: {"state_dict": {**prefixed("net.encoder.", s), "val_acc.tp": torch.ones(3)}}, "val_acc.tp"),
        (lambda s: {**s, "criterion.weight": torch.ones(3)}, "criterion.weight"),
    ],
)
def test_extra_tensors_are_left_out_and_named(content, left, state, tmp_path):
    found = read(content(state), tmp_path)
    assert same(found, state) and any("left out" in note and left in note for note in found.notes)


def test_averaged_weights_are_preferred(state, tmp_path):
    average = {key: value + 1 for key, value in state.items()}
    content = {"state_dict": {**prefixed("model.", state), **prefixed("ema_model.", average)}}
    assert same(read(content, tmp_path), average)


def test_timms_names_under_a_prefix(tmp_path):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model(NAME, num_classes=3, depth=1).state_dict()
    found = read({"state_dict": {**prefixed("model.", theirs), "criterion.weight": torch.ones(3)}}, tmp_path)
    assert found.format == "timm"


def test_deit_with_one_head_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 192}
    config = transformers.DeiTConfig(**sizes, image_size=32, patch_size=8, num_labels=5)
    theirs = transformers.DeiTForImageClassification(config).eval()
    torch.nn.init.normal_(theirs.classifier.weight)
    theirs.save_pretrained(tmp_path / "there")
    ours = from_checkpoint(tmp_path / "there").model.eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images).logits, rtol=1e-5, atol=1e-5)
    convert(tmp_path / "there", "huggingface", tmp_path / "back")
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "back").eval()
    torch.testing.assert_close(again(images).logits, theirs(images).logits, rtol=1e-5, atol=1e-5)


def peer_of_timm():
    timm = pytest.importorskip("timm")
    model = timm.create_model("poolformer_s12", num_classes=5).eval()
    torch.nn.init.normal_(model.head.norm.weight)
    torch.nn.init.normal_(model.head.norm.bias)
    return model


def test_a_source_decides_where_libraries_differ(tmp_path):
    theirs, images = peer_of_timm(), torch.randn(1, 3, 64, 64)
    ours = vitrail.create_model("poolformer_s12", weights=theirs.state_dict(), num_classes=5).eval()
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)
    chosen = vitrail.create_model("poolformer_s12", weights=theirs.state_dict(), num_classes=5, pooling="official")
    assert chosen.config.pooling == "official"


def test_a_model_with_another_computation_is_reported(caplog):
    model = vitrail.create_model("poolformer_s12", num_classes=5)
    report = load_weights(model, peer_of_timm().state_dict())
    assert report.differs == {"pooling": "timm"}
    assert "the logits differ from the source's, which has pooling='timm'" in caplog.text
