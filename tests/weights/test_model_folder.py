"""The model folder: loading restores the saved model, and damage is found and named."""

import json
import os
import resource
import shutil
import stat
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, metadata_load

from vitrail.errors import DataError, ResourceError, VitrailError
from vitrail.fused.optimize import optimize
from vitrail.models import create_model
from vitrail.preprocess import Preprocess, from_processor, to_processor
from vitrail.weights.checkpoint_io import read_checkpoint
from vitrail.weights.folder import load_model, save_model
from vitrail.weights.manifest import MANIFEST, dump_json, own_checksum, verify, write_manifest

FILES = ["README.md", "config.json", "manifest.json", "model.safetensors", "preprocessor_config.json"]
LABELS = ("cat", "dog", "a | <b>bird</b>")
ABOUT: dict[str, Any] = dict(
    labels=LABELS, command="vitrail train data=pets", metrics={"top1": 0.97}, dataset="Pets", license="mit"
)


def small(**overrides):
    numbers: dict[str, Any] = dict(dim=8, depths=(1, 1), num_heads=(1, 2), num_classes=3, image_size=32)
    return create_model("swin_tiny_patch4_window7_224", **{**numbers, **overrides}).eval()


@pytest.fixture
def saved(tmp_path):
    return save_model(small(), tmp_path / "model", **ABOUT)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_loaded_model_equals_the_saved_one(tmp_path):
    model = small()
    loaded = load_model(save_model(model, tmp_path / "model", **ABOUT))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))
    assert loaded.config == model.config and loaded.variant == model.variant
    assert loaded.labels == LABELS and loaded.command == ABOUT["command"] and not loaded.training


def test_loading_keeps_the_callers_rng_and_requires_grad(saved):
    state = torch.random.get_rng_state()
    loaded = load_model(saved)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    loaded(torch.randn(1, 3, 32, 32)).sum().backward()


def test_every_architecture_is_saved_and_loaded(tmp_path):
    for variant in ("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "poolformer_s12", "mixer_s32_224"):
        model = create_model(variant, num_classes=3).eval()
        again = load_model(save_model(model, tmp_path / variant))
        assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
        assert again.config == model.config


def test_a_model_whose_parts_were_exchanged_is_refused_before_anything_is_written(saved, tmp_path):
    """Its folder could not be loaded again, and whoever made it would find out too late."""
    before, altered = contents(saved), small()
    altered.head = torch.nn.Sequential(torch.nn.LazyLinear(3))
    with pytest.raises(VitrailError, match="was changed after it was made"):
        save_model(altered, saved)
    with pytest.raises(VitrailError, match="state_dict"):
        save_model(altered, tmp_path / "new")
    assert contents(saved) == before and not (tmp_path / "new").exists()
    wider = small()
    wider.backbone.norm = torch.nn.LayerNorm(5)
    with pytest.raises(VitrailError, match=r"2 tensors.*backbone\.norm"):
        save_model(wider, tmp_path / "new")


def test_an_optimized_model_is_not_saved_but_its_source(tmp_path):
    with pytest.raises(VitrailError, match="Save the model that it was made from"):
        save_model(optimize(small(), "fp32"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_save_load_save_gives_the_same_bytes(saved, tmp_path):
    again = save_model(load_model(saved), tmp_path / "again")
    assert sorted(contents(saved)) == FILES
    assert contents(again) == contents(saved)


def test_every_file_has_the_rights_of_an_ordinary_file(saved):
    assert len({stat.S_IMODE((saved / name).stat().st_mode) for name in FILES}) == 1


def test_another_protocol_is_kept(tmp_path):
    protocol = Preprocess(size=48, crop=0.75, interpolation="bilinear", mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 0.5))
    loaded = load_model(save_model(small(), tmp_path / "model", inputs=protocol))
    assert loaded.preprocess == protocol
    assert loaded.config.preprocess.size == 32, "the size that it was built for stays"


def test_an_older_model_folder_is_replaced_and_other_folders_are_not(saved, tmp_path):
    save_model(small(dim=16), saved)
    assert load_model(saved).config.dim == 16
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(VitrailError, match="holds other files"):
        save_model(small(), tmp_path / "mine")


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_wherever_it_is_and_named(name, saved):
    path = saved / name
    whole = path.read_bytes()
    places = range(0, len(whole), max(1, len(whole) // 25))
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            load_model(saved)
    path.write_bytes(whole)
    load_model(saved)


def test_a_flipped_bit_names_its_tensor(saved):
    path = saved / "model.safetensors"
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    start = 8 + int.from_bytes(content[:8], "little")
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        damaged = bytearray(content)
        damaged[start + entry["data_offsets"][1] - 1] ^= 64
        path.write_bytes(damaged)
        with pytest.raises(DataError) as raised:
            verify(saved)
        assert f"Changed: {name}." in str(raised.value)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_shortened_file_is_named(name, saved):
    whole = (saved / name).read_bytes()
    (saved / name).write_bytes(whole[:-1])
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        load_model(saved)
    (saved / name).unlink()
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        load_model(saved)


def test_files_of_two_models_do_not_mix(saved, tmp_path):
    other = save_model(small(dim=16), tmp_path / "other")
    shutil.copy(other / "model.safetensors", saved)
    with pytest.raises(DataError, match=r"model\.safetensors has"):
        load_model(saved)
    write_manifest(saved)
    with pytest.raises(DataError, match=r"does not fit what config\.json describes"):
        load_model(saved)


def test_an_intended_change_updates_the_manifest(saved):
    (saved / "README.md").write_text("# Better words\n")
    with pytest.raises(DataError, match=r"vitrail\.weights\.manifest\.seal"):
        load_model(saved)
    write_manifest(saved)
    assert load_model(saved).command == ABOUT["command"]


def test_a_newer_format_is_refused_by_version(saved):
    manifest = json.loads((saved / MANIFEST).read_bytes())
    manifest["format_version"] = 99
    manifest["checksum"] = own_checksum(manifest)
    (saved / MANIFEST).write_bytes(dump_json(manifest))
    with pytest.raises(DataError, match="written by a newer vitrail"):
        load_model(saved)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"files": 3}'])
def test_nonsense_for_a_manifest_is_a_data_error(content, saved):
    (saved / MANIFEST).write_bytes(content)
    with pytest.raises(DataError, match="manifest"):
        load_model(saved)


def test_a_full_disk_keeps_the_older_folder(saved, monkeypatch):
    before = contents(saved)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(ResourceError, match="bytes needed"):
            save_model(small(dim=16), saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(saved) == before and os.listdir(saved.parent) == ["model"]
    load_model(saved)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(VitrailError, match="is not there"):
        load_model(tmp_path / "missing")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(VitrailError, match="is a file"):
        load_model(tmp_path / "file")
    with pytest.raises(DataError, match="has no manifest"):
        load_model(tmp_path)
    with pytest.raises(VitrailError, match="no variant and config"):
        save_model(torch.nn.Linear(1, 1), tmp_path / "x")  # pyright: ignore[reportArgumentType]
    with pytest.raises(VitrailError, match="Got 2 labels for a model of 3 classes"):
        save_model(small(), tmp_path / "x", labels=["a", "b"])


def test_a_folder_of_models_names_them(saved):
    folds = saved.parent / "kf"
    for name in ("fold-0", "fold-1"):
        shutil.copytree(saved, folds / name / "weights" / "best")
    for read in (load_model, read_checkpoint):
        with pytest.raises(VitrailError, match=r"it holds 2 models: .*/kf/fold-0, .*/kf/fold-1\.\nGive one of them"):
            read(folds)


def test_a_folder_set_aside_by_a_crash_is_found_again(saved):
    saved.rename(saved.with_name(".model.old"))
    assert load_model(saved).labels == LABELS


def test_the_card_passes_the_hubs_reader(saved):
    front: Any = metadata_load(saved / "README.md")
    assert front["license"] == "mit" and front["library_name"] == "vitrail"
    assert front["pipeline_tag"] == "image-classification" and front["metrics"] == ["accuracy"]
    card: Any = ModelCard.load(saved / "README.md")
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("accuracy", 0.97, "Pets")
    assert "<b>" not in card.content


def test_a_card_without_figures_has_no_results(tmp_path):
    front: Any = metadata_load(save_model(small(), tmp_path / "model") / "README.md")
    assert front["license"] == "unknown" and "model-index" not in front


def test_transformers_reads_the_protocol(saved):
    from PIL import Image
    from transformers import BitImageProcessor

    processor = BitImageProcessor.from_pretrained(saved)
    image = Image.effect_noise((80, 60), 50).convert("RGB")
    assert processor(image, return_tensors="pt")["pixel_values"].shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (to_processor(Preprocess(size=384, crop=1.0)), Preprocess(size=384, crop=1.0)),
        (
            {"size": 256, "do_center_crop": True, "crop_size": 224, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
            Preprocess(224, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3),
        ),
        (
            {"size": {"height": 224, "width": 224}, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
            Preprocess(224, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3, crop_mode="squash"),
        ),
    ],
)
def test_hugging_face_preprocessing_names_are_read(fields, expected):
    assert from_processor(fields) == expected


@pytest.mark.parametrize("fields", [{}, {"size": 0}, {"size": "x", "image_mean": [], "image_std": []}, {"size": {}}])
def test_invalid_protocols_are_data_errors(fields):
    with pytest.raises(DataError, match="preprocessor_config"):
        from_processor(fields)
