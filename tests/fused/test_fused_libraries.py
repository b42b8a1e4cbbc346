"""Compiled libraries: a model's are known before one is built, and where one cannot be, its forms are not taken."""

from typing import Any

import pytest
import torch
from small_models import SMALL, relative, small

import vitrail
from vitrail.fused.conversions import CONVERSIONS
from vitrail.fused.optimize import unbuilt
from vitrail.fused.plan import OptimizePlan
from vitrail.fused.table import conversions
from vitrail.native import build as native_build
from vitrail.native.build import SOURCES, refusal

COMPILED = refusal(torch.float32)
pytestmark = pytest.mark.skipif(COMPILED is not None, reason=str(COMPILED))
CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", SMALL)
def test_forward_calls_only_required_libraries(name: str, precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(name)
    named = set(OptimizePlan.of(precision, CPU).libraries(model))
    monkeypatch.setattr(native_build, "_FOUND", {})
    fast = vitrail.optimize(model, precision)
    with torch.inference_mode():
        for batch in (1, 3):  # small batches are shared out in another way
            fast(torch.randn(batch, 3, 64, 64))
    assert set(native_build._FOUND) == named
    assert unbuilt(model, precision) == 0


def test_required_libraries_exist() -> None:
    tables = CONVERSIONS, conversions("cpu"), conversions("int8")
    named = {name for table in tables for rule in table.values() for name in rule.libraries}
    assert named and all((SOURCES / f"{name}.cpp").exists() for name in named)


@pytest.mark.parametrize(
    ("name", "broken", "unconverted"),
    [
        ("swin official", "attention", {"token mixer: broken": 4}),
        ("swin official", "patches", {"PatchEmbedding: broken": 1, "PatchMerging: broken": 1}),
        ("poolformer", "pooling", {"token mixer: broken": 3, "channel mixer: broken": 3}),
        ("mixer", "token_mlp", {"token mixer: broken": 2}),
    ],
)
def test_a_failed_build_is_reported_and_the_rest_is_optimized(
    name: str, broken: str, unconverted: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = native_build._find
    monkeypatch.setattr(native_build, "_FOUND", {})
    monkeypatch.setattr(native_build, "_find", lambda name: "broken" if name == broken else find(name))
    model, images = small(name), torch.randn(2, 3, 64, 64)
    fast: Any = vitrail.optimize(model, "fp32")
    assert fast.unconverted == unconverted
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5


def test_missing_libraries_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    assert unbuilt(small("swin official"), "fp32") == 3  # products, attention, patches
    assert unbuilt(small("swin official"), "int8") == 5
