"""Activation checkpointing: the same run with less memory, and a refusal where a second pass is not the first."""

from dataclasses import replace

import pytest
import torch
from small_run import TINY

from vitrail.errors import VitrailError
from vitrail.training.train import train
from vitrail.weights.folder import load_model


def test_a_run_is_the_same_with_checkpointing(tmp_path):
    for name, wanted in (("plain", False), ("again", True)):
        train(replace(TINY, epochs=1, checkpointing=wanted, out=str(tmp_path / name)))
    plain, again = (load_model(tmp_path / name / "weights" / "last").state_dict() for name in ("plain", "again"))
    assert plain.keys() == again.keys()
    for key, value in plain.items():
        torch.testing.assert_close(again[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "fields", "words"),
    [
        ("resnet50", ("dim=8", "depths=1,1"), "BatchNorm2d of resnet50 counts each pass"),
        ("vit_tiny_patch16_224", TINY.set, "compile"),
    ],
)
def test_modules_with_state_are_refused(model, fields, words, tmp_path):
    with pytest.raises(VitrailError, match=words):
        train(
            replace(
                TINY,
                model=model,
                set=fields,
                drop_path=None,
                checkpointing=True,
                compile="compile" in words,
                out=str(tmp_path / "run"),
            )
        )
