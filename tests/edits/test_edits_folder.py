"""Edits in a folder are replayed; a model with edits trains, resumes, exports and is refused by name."""

import json

import pytest
import torch
from small_models import small

from vitrail.edits import EDITS
from vitrail.edits.blocks import DropBlocks
from vitrail.edits.edit import Edit, apply_edits, edits_from_json, edits_to_json, replay
from vitrail.edits.heads import PruneHeads
from vitrail.edits.hidden import PruneHidden
from vitrail.edits.low_rank import LowRank
from vitrail.errors import DataError, VitrailError
from vitrail.models import create_model
from vitrail.weights.convert import convert
from vitrail.weights.folder import load_model, save_model
from vitrail.weights.load import load_weights
from vitrail.weights.manifest import write_manifest

BLOCK = "backbone.stages.0.blocks.0"
ALL: tuple[Edit, ...] = (
    DropBlocks({"backbone.stages.0": [1]}),
    PruneHeads({f"{BLOCK}.token_mixer": [0, 2]}),
    PruneHidden({f"{BLOCK}.channel_mixer": range(0, 96, 2)}),
    LowRank({f"{BLOCK}.channel_mixer.fc1": 5, f"{BLOCK}.token_mixer.proj": 3}),
)


@pytest.fixture(scope="module")
def edited():
    return apply_edits(small("vit"), *ALL)


@pytest.fixture(scope="module")
def folder(edited, tmp_path_factory):
    return save_model(edited, tmp_path_factory.mktemp("edits") / "model")


def images(count=2):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_every_edit_of_the_table_is_tested_here():
    assert {edit.kind for edit in ALL} <= EDITS.keys()


def test_a_loaded_model_has_the_edits_and_equal_logits(edited, folder):
    loaded = load_model(folder)
    with torch.no_grad():
        assert torch.equal(loaded(images()), edited(images()))
    assert loaded.edits == edited.edits == ALL
    assert sum(value.numel() for value in loaded.parameters()) < sum(
        value.numel() for value in small("vit").parameters()
    )
    card = (folder / "README.md").read_text()
    assert "| edits | blocks dropped: 1 left in backbone.stages.0; heads removed" in card


def test_saving_again_gives_the_same_bytes(folder, tmp_path):
    again = save_model(load_model(folder), tmp_path / "again")
    assert all((again / path.name).read_bytes() == path.read_bytes() for path in folder.iterdir())


def test_a_folder_without_edits_does_not_state_them(tmp_path):
    config = json.loads((save_model(small("vit"), tmp_path / "plain") / "config.json").read_text())
    assert "edits" not in config and load_model(tmp_path / "plain").edits == ()


def test_edits_survive_json():
    text = json.dumps(edits_to_json(ALL))
    assert edits_from_json(json.loads(text)) == ALL


def test_a_shape_is_rebuilt_without_computing_weights(edited):
    with torch.device("meta"):
        shell = replay(create_model(edited.variant, **vars(edited.config)), ALL)
    wanted = {key: value.shape for key, value in edited.state_dict().items()}
    assert {key: value.shape for key, value in shell.state_dict().items()} == wanted


@pytest.mark.parametrize(
    ("edits", "kind", "words"),
    [
        ([{"edit": "prune_head", "keep": {}}], VitrailError, "Unknown edit 'prune_head'. Did you mean: prune_heads"),
        ([{"edit": "prune_heads", "keep": {}}], DataError, "mapping from names"),
        ([{"edit": "prune_heads", "keep": {"a": [1, 1]}}], DataError, "must ascend"),
        ([{"edit": "prune_heads", "keep": {"a": [-1]}}], DataError, "from 0 up"),
        ([{"edit": "low_rank", "ranks": {"a": 0}}], DataError, "from 1 up"),
        ([{"edit": "low_rank"}], DataError, "needed: ['ranks']"),
        ("heads", DataError, "list of objects"),
        ([{"edit": "drop_blocks", "keep": {"backbone.stages.9": [0]}}], VitrailError, "Unknown part of the model"),
        ([{"edit": "drop_blocks", "keep": {"backbone.stages.0": [9]}}], VitrailError, "number 9 is to be kept"),
        ([{"edit": "prune_heads", "keep": {f"{BLOCK}.token_mixer": [3]}}], VitrailError, "has 3 heads"),
        ([{"edit": "low_rank", "ranks": {f"{BLOCK}.norm1": 2}}], VitrailError, "is LayerNorm"),
        ([{"edit": "low_rank", "ranks": {f"{BLOCK}.token_mixer.proj": 99}}], VitrailError, "has no rank 99"),
    ],
)
def test_invalid_edits_in_a_config_are_refused_by_name(tmp_path, edits, kind, words):
    folder = save_model(small("vit"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "edits": edits}))
    write_manifest(folder, None, "preprocessor_config.json")
    with pytest.raises(kind) as caught:
        load_model(folder)
    assert words in str(caught.value) and "config.json" in str(caught.value)


def test_edits_are_applied_to_a_model_with_another_head(folder, edited):
    model = create_model(edited.variant, weights=str(folder), **{**vars(edited.config), "num_classes": 4})
    assert model.edits == ALL and model.config.num_classes == 4
    torch.testing.assert_close(model.features(images()).tokens, edited.features(images()).tokens)
    report = load_weights(model, str(folder))  # it has them already
    assert model.edits == ALL and "head.linear.weight" in report.kept


def test_a_model_that_does_not_fit_or_has_other_edits_is_not_changed(folder, edited):
    other = apply_edits(small("vit"), DropBlocks({"backbone.stages.0": [0]}))
    with pytest.raises(VitrailError, match="and this model has others"):
        load_weights(other, str(folder))
    wider = small("vit", dim=48)
    with pytest.raises(VitrailError, match="does not fit"):
        load_weights(wider, str(folder))
    assert wider.edits == () and len(wider.backbone.stages[0].blocks) == 2


def test_a_model_with_edits_is_copied_but_not_written_for_others(folder, tmp_path):
    convert(folder, "vitrail", tmp_path / "copy")
    assert load_model(tmp_path / "copy").edits == ALL
    for name in ("timm", "huggingface"):
        with pytest.raises(VitrailError, match=f"{name} has no architecture of that shape"):
            convert(folder, name, tmp_path / "out.safetensors")
    with pytest.raises(VitrailError, match="Leave the name of the variant"):
        convert(folder, "vitrail", tmp_path / "copy", model="vit_small_patch16_224")
