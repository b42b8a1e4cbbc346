"""A config refuses invalid values, and names valid ones."""

import subprocess
import sys
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import pytest

from vitrail.data.augment import AUGMENTS
from vitrail.errors import VitrailError
from vitrail.tasks.classify import options
from vitrail.training.config import _CHOICES, RUNTIME, TrainConfig


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("lr", 0.0, "above 0"),
        ("lr", -1.0, "lr=auto"),
        ("lr", "fast", "a number is needed"),
        ("lr", float("nan"), "above 0"),
        ("batch", 0, "at least 1"),
        ("epochs", 0, "at least 1"),
        ("minutes", 0.0, "above 0"),
        ("warmup", -0.1, "at least 0"),
        ("warmup", 100, "share of the run"),
        ("smoothing", 1.0, "below 1"),
        ("ema", 1.0, "below 1"),
        ("layer_decay", 0.0, "above 0"),
        ("min_lr", 0.1, "swap"),
        ("grad_accum", 0, "at least 1"),
        ("optimizer", "adamm", "adamw"),
        ("scheduler", "cosin", "cosine"),
        ("precision", "fp16", "bf16|fp32"),
        ("freeze", "backbon", "backbone"),
        ("augment", "fotos", "photo"),
        ("set", ("depth",), "name=value"),
        ("seed", -1, "at least 0"),
    ],
)
def test_invalid_values_are_refused_with_a_remedy(name: str, value: Any, said: str) -> None:
    with pytest.raises(VitrailError, match=said) as caught:
        TrainConfig(**{"epochs": 100, "lr": 1e-3, name: value})
    assert len(str(caught.value).splitlines()) <= 6


def test_a_mistyped_option_gets_the_nearest() -> None:
    with pytest.raises(VitrailError, match="Did you mean: weight_decay"):
        TrainConfig.from_dict({"wieght_decay": 0.1})


def test_minus_one_is_auto() -> None:
    assert TrainConfig(batch=-1).batch == "auto"


def test_choices_are_those_of_the_types_and_of_the_data_room() -> None:
    hints = get_type_hints(TrainConfig)
    for name, choices in _CHOICES.items():
        if get_args(hints[name]):
            assert get_args(hints[name]) == choices, name
    assert set(options.AUGMENTS) == {"auto", *AUGMENTS}
    assert get_args(get_type_hints(options.TrainOptions)["augment"]) == options.AUGMENTS


def test_runtime_fields_exist() -> None:
    assert set(RUNTIME) <= {field.name for field in fields(TrainConfig)}


def test_plain_values_make_the_same_config_again() -> None:
    config = TrainConfig(data="digits", set=("dim=16", "depths=2,2", "edge=timm"), lr="auto")
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    assert TrainConfig.from_dict({**values, "set": list(config.set)}) == config
    assert config.model_overrides() == {"dim": 16, "depths": (2, 2), "edge": "timm"}


def test_help_can_be_shown_without_torch() -> None:
    code = "import sys, vitrail.cli.train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
