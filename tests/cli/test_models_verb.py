"""`vitrail models`: the list, one model, and unknown names."""

import json

import pytest

from vitrail.models import list_models
from vitrail.models.published import PUBLISHED


def test_the_table_has_a_line_for_every_variant(run):
    lines = run("models").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list_models()
    assert max(map(len, lines)) <= 100


def test_a_pattern_and_a_part_of_a_name_both_choose(run):
    by_pattern = run("models", "swin_*", "--json").out
    assert [row["name"] for row in json.loads(by_pattern)] == list_models("swin_*")
    assert run("models", "swin", "--json").out == by_pattern
    assert run("models", "pattern=SWIN", "json=true").out == by_pattern


def test_a_family_chooses_where_names_do_not_hold_it(run):
    assert [row["name"] for row in json.loads(run("models", "bit", "--json").out)] == list_models("resnetv2*")
    assert run("models", "bit*").out == run("models", "bit").out


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_counts_of_one_model_agree_with_the_ledger(run, name):
    facts = json.loads(run("models", name, "--json").out)
    assert facts["parameters"] == PUBLISHED[name].parameters
    assert round(facts["multiply_adds"] / 1e9, 3) == PUBLISHED[name].gmacs
    told = run("models", name).out
    assert f"{PUBLISHED[name].parameters:,}" in told and "short side to 248 (bicubic)" in told


def test_a_changed_config_is_counted_as_changed(run):
    name = "vit_tiny_patch16_224"
    facts = json.loads(run("models", name, "--set", "num_classes=10", "image_size=448", "--json").out)
    assert facts["parameters"] == PUBLISHED[name].parameters - 990 * 193 + (28**2 - 14**2) * 192
    assert facts["preprocess"]["size"] == 448


def test_a_changed_config_is_printed_with_its_command(run):
    said = run("models", "vit_tiny_patch16_224", "--set", "num_classes=7", "image_size=64", "depth=3").out
    assert "create_model('vit_tiny_patch16_224', num_classes=7, image_size=64, depth=3)" in said
    assert said.rstrip().endswith("vitrail train FOLDER --model vit_tiny_patch16_224 --imgsz 64 --set depth=3")


def test_a_family_is_distinguished_from_names_containing_it(run):
    assert [row["name"] for row in json.loads(run("models", "nat", "--json").out)] == list_models("nat_*")
    assert "dinat_small" not in run("models", "dinat_s").out
    assert "published      official 83.2" in run("models", "nat_tiny").out


def test_unknown_names(run):
    told = run("models", "swim_tiny").err
    assert "Did you mean: " in told and "swin_tiny_patch4_window7_224" in told
    assert run("models", "zzz*").code == 2
    assert "Name one of them" in run("models", "swin*", "--set", "num_classes=10").err


def test_a_family_shows_variants_with_accuracy_protocol_and_source(run):
    told = run("models", "--family", "nat").out
    assert told.startswith("NAT (2023; from swin and sasa): each cell attends to the cells around it.")
    assert "hf:shi-labs/nat-mini-in1k-224" in told and "Files of official, huggingface are read" in told
    assert "vitrail train makes your own weights" in run("models", "--family", "sasa").out
    facts = json.loads(run("models", "--family", "swin", "--json").out)
    rows = {row["name"]: row for row in facts["variants"]}
    tiny = rows["swin_tiny_patch4_window7_224"]
    assert (tiny["parameters"], tiny["protocol"]) == (28_288_354, "248 to 224, bicubic")
    assert tiny["source"].startswith("timm ") and tiny["weights"].startswith("hf:timm/swin_tiny")


def test_an_unknown_family_is_corrected(run):
    assert "swin" in run("models", "--family", "swim").err
