"""Typing mistakes of names, verbs and flags get the name that was meant, and nothing that looks like chance."""

import pytest

from vitrail.cli import VERBS, verb_class
from vitrail.cli.flags import flags_of
from vitrail.errors import nearest
from vitrail.models import list_models


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("vit_tinny", "vit_tiny_patch16_224"),
        ("vittiny", "vit_tiny_patch16_224"),
        ("vit-tiny", "vit_tiny_patch16_224"),
        ("vit_bse", "vit_base_patch8_224"),
        ("ViT-B/16", "vit_base_patch16_224"),
        ("vit_tiny_patch16_244", "vit_tiny_patch16_224"),
        ("swim_tiny", "swin_tiny_patch4_window7_224"),
        ("swin_tiny_224", "swin_tiny_patch4_window7_224"),
        ("deit_tny", "deit_tiny_patch16_224"),
        ("dinat_tinny", "dinat_tiny"),
        ("dinats_tiny", "dinat_s_tiny"),
        ("resnet-50", "resnet50"),
    ],
)
def test_a_model(typed: str, meant: str) -> None:
    assert nearest(typed, list_models())[0] == meant


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("trian", "train"), ("eval", "evaluate"), ("predcit", "predict"), ("benchmark", "bench"), ("docter", "doctor")],
)
def test_a_verb(typed: str, meant: str) -> None:
    assert nearest(typed, VERBS)[0] == meant


@pytest.mark.parametrize(
    ("verb", "typed", "meant"),
    [
        ("evaluate", "--splt", ["--split", "--split-column"]),
        ("evaluate", "--bach", ["--batch"]),
        ("train", "--epoch", ["--epochs"]),
        ("train", "--precison", ["--precision"]),
        ("train", "--splt", ["--split-column"]),
        ("predict", "--topk", ["--top"]),
    ],
)
def test_a_flag(verb: str, typed: str, meant: list[str]) -> None:
    assert nearest(typed, [f"--{flag.name}" for flag in flags_of(verb_class(verb))]) == meant


def test_a_mistyped_foreign_name_suggests_the_own_name(run) -> None:
    assert "Did you mean: --lr?" in run("train", "digits", "--lerning-rate", "1").err


def test_no_suggestion_is_better_than_three_by_the_alphabet(run) -> None:
    told = run("train", "digits", "--qwxz", "val").err
    assert "looks like it" in told and "`vitrail train --help` lists every flag." in told
