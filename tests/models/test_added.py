"""Architectures from custom files: available everywhere, and their errors are reported with the line."""

import os
from pathlib import Path

import pytest
import torch
from small_models import relative
from torch.nn.functional import elu

import vitrail
from vitrail.errors import VitrailError
from vitrail.explain.influence import influence_maps
from vitrail.inference.flops import count_macs
from vitrail.models import catalogue, create_model, family_of, find, list_models

RECIPE = Path(__file__).parents[2] / "recipes" / "linear_attention.py"
SIZES = {"dim": 24, "depth": 2, "num_heads": 3, "image_size": 64, "num_classes": 4}

ARCHITECTURE = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Config:
    dim: int = 8
    num_classes: int = 10
    in_channels: int = 3
    preprocess: object = None

def build(config):
    raise NotImplementedError

VARIANTS = {"mine_tiny": Config()}
"""


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the recipe's file."""
    monkeypatch.setenv("VITRAIL_MODELS", str(RECIPE))


def named(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    monkeypatch.setenv("VITRAIL_MODELS", os.pathsep.join(map(str, paths)))


@pytest.mark.usefixtures("own")
def test_custom_variants_join_the_catalogue() -> None:
    assert list_models("linear*") == ["linear_tiny", "linear_small"] and list_models()[-1] == "linear_small"
    assert family_of("linear_tiny") == "linear_attention" and find("linear_tiny") is find("linear_small")


def test_a_file_listed_twice_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    named(monkeypatch, RECIPE, RECIPE)
    assert list_models("linear*") == ["linear_tiny", "linear_small"]


def test_without_the_variable_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VITRAIL_MODELS", raising=False)
    with pytest.raises(VitrailError, match="VITRAIL_MODELS"):
        create_model("linear_tiny")


@pytest.mark.usefixtures("own")
def test_linear_attention_is_attention_whose_weights_are_products_of_features() -> None:
    model = create_model("linear_tiny", **SIZES).eval()
    mixer = model.backbone.stages[0].blocks[0].token_mixer
    x, grid = torch.randn(2, 17, 24), vitrail.Grid(4, 4, prefix=1)
    q, k, v = mixer.qkv(x).unflatten(-1, (3, 3, 8)).unbind(2)  # each (B, N, h, d)
    mixed = torch.zeros(2, 17, 3, 8)
    for b in range(2):
        for head in range(3):
            for i in range(17):
                weights = torch.stack([(elu(q[b, i, head]) + 1) @ (elu(k[b, j, head]) + 1) for j in range(17)])
                mixed[b, i, head] = (weights / weights.sum()) @ v[b, :, head]
    assert relative(mixer(x, grid), mixer.proj(mixed.flatten(2))) < 1e-6


@pytest.mark.usefixtures("own")
def test_custom_models_work_with_every_tool(tmp_path: Path) -> None:
    model, images = create_model("linear_tiny", **SIZES).eval(), torch.randn(2, 3, 64, 64)
    softmax = create_model("deit_tiny_patch16_224", **SIZES)
    # All is DeiT's but the mixer, where two products of (N, N, d) become two of (N, d, d): 2 h N d (N - d) a block.
    assert count_macs(softmax) - count_macs(model) == 2 * (2 * 3 * 17 * 8 * (17 - 8))
    assert influence_maps(model, images, blocks=[-1])[0].dense().shape == (2, 1, 17, 17)
    fast = vitrail.optimize(model, precision="fp32")
    vitrail.save_model(model, tmp_path / "model", labels=["a", "b", "c", "d"])
    loaded = vitrail.load_model(tmp_path / "model")
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5
        assert torch.equal(loaded(images), model(images))


def test_several_files_are_read_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ARCHITECTURE)
    named(monkeypatch, tmp_path / "mine.py", RECIPE)
    assert list_models()[-3:] == ["mine_tiny", "linear_tiny", "linear_small"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1\ny = (", r"SyntaxError: .* \(line 2\)"),
        ("import math\n\nmath.nothing", r"AttributeError: .*nothing.* \(line 3\)"),
        ("VARIANTS = {}", "it needs build"),
        (ARCHITECTURE.replace("mine_tiny", "vit_tiny_patch16_224"), "there is a model 'vit_tiny_patch16_224' already"),
        (ARCHITECTURE.replace("    num_classes: int = 10\n", ""), "fields num_classes"),
        (ARCHITECTURE.replace("Config()", "3"), "fields in_channels, num_classes, preprocess"),
        (ARCHITECTURE.replace("Config()", "Config"), "fields in_channels, num_classes, preprocess"),
    ],
)
def test_errors_of_a_custom_file_are_reported(
    text: str, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(text)
    named(monkeypatch, tmp_path / "broken.py")
    with pytest.raises(VitrailError, match=reason) as told:
        catalogue()
    assert str(told.value).startswith(f"VITRAIL_MODELS names {tmp_path / 'broken.py'}: ")


def test_missing_files_and_taken_names_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    named(monkeypatch, tmp_path / "lost.py")
    with pytest.raises(VitrailError, match="it is not there"):
        catalogue()
    (tmp_path / "swin.py").write_text(ARCHITECTURE)
    named(monkeypatch, tmp_path / "swin.py")
    with pytest.raises(VitrailError, match="an architecture 'swin' already"):
        catalogue()
