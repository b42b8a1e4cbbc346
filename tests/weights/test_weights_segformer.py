"""SegFormer: the logits of Hugging Face, its files, and the authors' keys."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_peers import difference

from vitrail.cli import main
from vitrail.errors import VitrailError
from vitrail.inference.model_loading import find_model
from vitrail.models import create_model
from vitrail.weights.formats import write_as
from vitrail.weights.from_checkpoint import from_checkpoint
from vitrail.weights.load import load_weights

SMALL = {
    "dims": (8, 16, 24, 32),
    "depths": (1, 2, 1, 1),
    "num_heads": (1, 2, 2, 4),
    "mlp_ratios": (4.0, 4.0, 4.0, 4.0),
}


def ours() -> Any:
    return create_model("segformer_b0", backbone_config=SMALL, channels=16, num_classes=5, image_size=64).eval()


def peer() -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        num_labels=5,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 2, 1, 1],
        num_attention_heads=[1, 2, 2, 4],
        decoder_hidden_size=16,
    )
    model = transformers.SegformerForSemanticSegmentation(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.add_(torch.rand_like(buffer) * 0.5)
    return model.eval()


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_same_weights_same_logits_as_hugging_face(size: tuple[int, int]) -> None:
    theirs, model = peer(), ours()
    report = load_weights(model, theirs.state_dict())
    assert report.format == "transformers" and not (report.missing or report.adapted or report.kept)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        want = theirs(images).logits  # at a quarter of the size
        assert difference(model.head(model.backbone(images)), want) < 1e-5
        upsampled = torch.nn.functional.interpolate(want, size=size, mode="bilinear")
        assert difference(model(images), upsampled) < 1e-5


def test_its_files_and_the_authors_are_read(tmp_path: Path) -> None:
    theirs, model = peer(), ours()
    theirs.save_pretrained(tmp_path)
    file = load_file(tmp_path / "model.safetensors")
    assert load_weights(model, file).format == "huggingface"
    written = write_as("huggingface", "segformer", model.state_dict(), model.config)
    assert written.keys() == file.keys() and all(torch.equal(written[key], file[key]) for key in file)
    again = ours()
    report = load_weights(again, write_as("official", "segformer", model.state_dict(), model.config))
    assert report.format == "official"
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("labels", "width"), [(5, 256), (150, 256), (19, 32)])
@torch.no_grad()
def test_a_folder_of_any_number_of_labels_and_any_decoder_width(labels: int, width: int, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(num_labels=labels, decoder_hidden_size=width)
    theirs = transformers.SegformerForSemanticSegmentation(config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    model: Any = find_model(str(tmp_path / "theirs"), None, "cpu")
    assert (model.variant, model.config.num_classes, model.config.channels) == ("segformer_b0", labels, width)
    images = torch.randn(1, 3, 64, 64)
    assert difference(model.head(model.backbone(images)), theirs(images).logits) < 1e-5
    if labels == 5:
        assert main(["convert", str(tmp_path / "theirs"), "--out", str(tmp_path / "ours")]) == 0
        converted: Any = find_model(str(tmp_path / "ours"), None, "cpu")
        assert converted.config == model.config


OWN = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 2, 1, 1], "num_attention_heads": [2, 4, 6, 8]}


def saved(kind: str, place: Path, **fields: Any) -> Any:
    """Write a folder of Hugging Face with every parameter drawn; return the model."""
    transformers = pytest.importorskip("transformers")
    model = getattr(transformers, f"SegformerFor{kind}")(transformers.SegformerConfig(num_labels=5, **fields))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(place)
    return model.eval()


@torch.no_grad()
def test_a_segmenter_of_the_sizes_of_no_variant_is_read(tmp_path: Path) -> None:
    theirs = saved("SemanticSegmentation", tmp_path, **OWN, sr_ratios=[4, 2, 2, 1], mlp_ratios=[2, 2, 4, 4])
    model: Any = from_checkpoint(tmp_path).model.eval()
    images = torch.randn(1, 3, 64, 64)
    assert difference(model.head(model.backbone(images)), theirs(images).logits) < 1e-5
    saved("SemanticSegmentation", tmp_path, **OWN, patch_sizes=[7, 5, 5, 5])
    with pytest.raises(VitrailError, match="patch_sizes"):
        from_checkpoint(tmp_path)


@pytest.mark.parametrize("fields", [{}, OWN, {**OWN, "num_channels": 1}])
@torch.no_grad()
def test_a_classifier_on_the_encoder_is_a_pvt_v2(fields: dict[str, Any], tmp_path: Path) -> None:
    theirs = saved("ImageClassification", tmp_path, **fields)
    found = from_checkpoint(tmp_path)
    images = torch.randn(2, fields.get("num_channels", 3), 64, 64)
    assert difference(found.model.eval()(images), theirs(images).logits) < 1e-5
    segmenter: Any = create_model("segformer_b0", image_size=64).eval()
    if not fields:  # the usual beginning of a training
        assert load_weights(segmenter, tmp_path).format == "huggingface"
        maps = segmenter.backbone(images)
        assert torch.equal(maps.tokens, found.model.backbone(images).tokens)
    memory = from_checkpoint(theirs.state_dict(), "pvt_v2_b0", num_heads=tuple(theirs.config.num_attention_heads))
    assert memory.format == "transformers"
    saved("ImageClassification", tmp_path, **fields, hidden_act="relu")
    with pytest.raises(VitrailError, match="hidden_act=relu"):
        from_checkpoint(tmp_path)
