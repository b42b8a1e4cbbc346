"""Block sizes of GEMMs: no bit of a result depends on them; they are measured once and kept."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from closeness import drawn
from vitrail.errors import VitrailError
from vitrail.native import block_sizes
from vitrail.native.block_sizes import SWITCH, BlockSizes, best_block_sizes, measured
from vitrail.native.build import library, refusal
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.gemm import ADD, GELU, linear, mlp, pack_linear
from vitrail.native.int8 import int8_refusal, pack_int8

pytestmark = pytest.mark.skipif(refusal(torch.float32) is not None, reason="no compiled operations here")
CHOICES = [
    BlockSizes((panel,) * 3, rows) for panel, rows in [(1, 1), (30_000, 1 << 12), (1 << 18, 1 << 16), (1 << 30,) * 2]
]
"""From blocks of 64 k-steps and of one tile of rows to one block of everything."""


@pytest.fixture
def libraries() -> Iterator[list[Any]]:
    """The libraries with blocks, and the formula afterwards."""
    found = [library("gemm")] if int8_refusal() else [library("gemm"), library("int8")]
    yield found
    for each in found:
        BlockSizes.formula(library("gemm").vitrail_set_l2(0)).set(each)


def answers(dtype: torch.dtype, rows: int, inputs: int, outputs: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    x, weight = drawn(rows, inputs, dtype=dtype), torch.randn(outputs, inputs)
    add, back = drawn(rows, outputs, dtype=RESIDUAL[dtype]), torch.randn(inputs, outputs)
    one, two = pack_linear(weight, torch.randn(outputs), dtype), pack_linear(back, None, dtype)
    found = [linear(x, one), linear(x, one, GELU), linear(x, one, ADD, add), mlp(x.to(RESIDUAL[dtype]), one, two)]
    return found if int8_refusal() else [*found, linear(x, pack_int8(weight, None))]


@pytest.mark.parametrize("shape", [(1, 700, 130), (25, 2000, 66), (200, 300, 200), (13, 66, 700)])
def test_blocks_change_no_bit(shape: tuple[int, int, int], dtype: torch.dtype, libraries: list[Any]) -> None:
    expected = answers(dtype, *shape)
    for sizes in CHOICES:
        for each in libraries:
            sizes.set(each)
        assert all(torch.equal(*pair) for pair in zip(answers(dtype, *shape), expected, strict=True)), sizes


class Gemm:
    """A library whose products take longer or shorter by the bytes of their blocks; time passes only in them."""

    def __init__(self, best: int, saved: float) -> None:
        self.best, self.saved, self.now, self.calls, self.sizes = best, saved, 0.0, 0, {1: 0, 2: 0, 4: 0, "rows": 0}

    def vitrail_set_l2(self, bytes_: int) -> int:
        return 1 << 20

    def vitrail_set_blocks(self, k_step: int, panel: int, rows: int) -> None:
        self.sizes |= {k_step: panel or self.sizes[k_step], "rows": rows or self.sizes["rows"]}

    def product(self, k_step: int) -> None:
        self.calls += 1
        self.now += 1 - (self.saved if self.sizes[k_step] == self.best else 0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def make(best: int, saved: float) -> Gemm:
        gemm = Gemm(best, saved)
        gemm.vitrail_linear_float32 = gemm.vitrail_linear_bfloat16 = None  # type: ignore[attr-defined]
        steps = {"float32": 1, "bfloat16": 2}
        monkeypatch.setattr(block_sizes, "thread_time", lambda: gemm.now)
        monkeypatch.setattr(block_sizes, "_product", lambda gemm, suffix, _: lambda: gemm.product(steps[suffix]))
        return gemm

    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    monkeypatch.delenv(SWITCH, raising=False)
    return make


@pytest.mark.parametrize(("saved", "kept"), [(0.1, True), (0.01, False)])
def test_a_candidate_replaces_the_formula_if_it_saves_enough(fake: Any, saved: float, kept: bool) -> None:
    formula = BlockSizes.formula(1 << 20)
    best = 2 * formula.panels[0]
    gemm = fake(best, saved)
    found = measured(gemm, formula)
    assert found == BlockSizes((best,) * 3 if kept else formula.panels, formula.rows)
    assert gemm.sizes == {1: formula.panels[0], 2: formula.panels[1], 4: formula.panels[2], "rows": formula.rows}


def test_sizes_are_measured_once_and_kept(fake: Any, tmp_path: Path) -> None:
    gemm = fake(419430, 0.5)
    first = best_block_sizes(gemm, "gemm-1.so")
    calls = gemm.calls
    assert first is not None and first.panels == (419430,) * 3
    assert best_block_sizes(gemm, "gemm-1.so") == first and gemm.calls == calls
    assert best_block_sizes(gemm, "gemm-2.so") == first and gemm.calls == 2 * calls  # another build
    files = sorted((tmp_path / "speed").iterdir())
    assert len(files) == 2 and json.loads(files[0].read_text()) == [[419430] * 3, first.rows]


@pytest.mark.parametrize("content", ["", "{", "[]", "[[1, 2], 3]", "[[1, 2, 0], 3]", '[["a", 2, 3], 4]', "[1, 2]"])
def test_a_damaged_file_is_measured_again(content: str, fake: Any, tmp_path: Path) -> None:
    gemm = fake(419430, 0.5)
    expected = best_block_sizes(gemm, "gemm.so")
    (file,) = (tmp_path / "speed").iterdir()
    file.write_text(content)
    assert best_block_sizes(gemm, "gemm.so") == expected
    assert json.loads(file.read_text()) == [[419430] * 3, expected.rows]


def test_the_switch_keeps_the_formula(fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gemm = fake(419430, 0.5)
    monkeypatch.setenv(SWITCH, "formula")
    assert best_block_sizes(gemm, "gemm.so") is None and gemm.calls == 0
    monkeypatch.setenv(SWITCH, "fast")
    with pytest.raises(VitrailError, match="VITRAIL_GEMM_BLOCKS is 'fast'"):
        best_block_sizes(gemm, "gemm.so")
    monkeypatch.delenv(SWITCH)
    (tmp_path / "speed").write_text("not a folder")
    assert best_block_sizes(gemm, "gemm.so") is None and gemm.calls == 0


def test_the_real_library_is_measured_and_keeps_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_sizes, "DEEP", (6, 64, 16))
    monkeypatch.setattr(block_sizes, "WIDE", (12, 8, 16))
    gemm, drawn_before = library("gemm"), torch.get_rng_state()
    formula = BlockSizes.formula(gemm.vitrail_set_l2(0))
    found = measured(gemm, formula)
    candidates = {int(multiple * formula.panels[0]) for multiple in block_sizes.MULTIPLES}
    assert set(found.panels) <= candidates and gemm.vitrail_set_blocks(1, 0, 0) == formula.panels[0]
    assert torch.equal(torch.get_rng_state(), drawn_before)


def test_loaded_libraries_get_the_sizes(monkeypatch: pytest.MonkeyPatch, libraries: list[Any]) -> None:
    from vitrail.native import build

    chosen = BlockSizes((123_456, 234_567, 345_678), 1 << 18)
    monkeypatch.setattr(build, "_SIZED", set())
    monkeypatch.setattr(build, "best_block_sizes", lambda gemm, name: chosen)
    build._choose_blocks()
    for each in libraries:
        assert [each.vitrail_set_blocks(k_step, 0, 0) for k_step in (1, 2, 4)] == list(chosen.panels)
