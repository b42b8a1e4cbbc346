"""The Triton kernels against the readable references: run on the CPU by Triton's interpreter, compiled for GPUs, and
run on a GPU where there is one."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from vitrail.kernels.add_layer_norm.triton_backend import unsupported_reason as norm_unsupported_reason
from vitrail.kernels.neighborhood import neighborhood
from vitrail.kernels.neighborhood.triton_backend import unfit as neighborhood_unfit
from vitrail.kernels.triton_support import share, tile_of
from vitrail.kernels.window import window
from vitrail.kernels.window.triton_backend import unfit as window_unfit

pytest.importorskip("triton", reason="Triton is not installed")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
TOLERANCE = {"fp32": 1e-6, "fp16": 1e-3, "bf16": 1e-2}


def window_case(cut, size, window, shift, dtype="fp32", heads=2, d=8, batch=2, **more) -> tuple[str, dict[str, Any]]:
    height, width = size
    sizes = dict(cut=cut, height=height, width=width, window=window, shift=shift, heads=heads, d=d, batch=batch)
    return "window", dict(sizes, dtype=dtype, **more)


def neighborhood_case(size, kernel_size, dilation, dtype="fp32", heads=1, d=8, batch=1) -> tuple[str, dict[str, Any]]:
    height, width = size
    sizes = dict(height=height, width=width, kernel_size=kernel_size, dilation=dilation, heads=heads, d=d, batch=batch)
    return "neighborhood", dict(sizes, dtype=dtype)


CASES = [
    window_case("PadThenRoll", (8, 8), 4, 0),
    window_case("PadThenRoll", (5, 9), 4, 2, batch=3),
    window_case("RollThenPad", (3, 9), 4, 2),
    window_case("MaskedPadding", (7, 5), 4, 0),
    window_case("PadThenRoll", (7, 6), 4, 2, padded=False),
    neighborhood_case((3, 3), 3, 1),
    neighborhood_case((7, 9), 3, 2),  # groups of unequal length
    ("norm", dict(rows=37, width=24, dtype="fp32")),
    ("norm", dict(rows=5, width=200, dtype="fp32", added=False)),
    ("gelu", dict(rows=9, width=128, dtype="bf16")),
    ("fused_mlp", dict(rows=11, width=24, dtype="fp32")),
]
"""Cases of every test run: each kernel, each cut."""

LARGER_CASES = [
    window_case("RollThenPad", (5, 9), 4, 2),
    window_case("MaskedPadding", (8, 9), 4, 2),
    window_case("PadThenRoll", (8, 8), 4, 2, biased=False),
    window_case("PadThenRoll", (14, 14), 7, 3, "bf16", d=16),
    window_case("PadThenRoll", (9, 14), 7, 3, "fp16", d=24),
    window_case("PadThenRoll", (10, 10), 9, 4, "bf16", heads=1, d=16),  # 81 tokens: queries in several tiles
    neighborhood_case((9, 10), 3, 1, heads=2, batch=2),
    neighborhood_case((8, 11), 7, 1),
    neighborhood_case((6, 17), 3, 2),  # a tile without any cell
    neighborhood_case((13, 17), 5, 2, "bf16", d=16),
    neighborhood_case((7, 23), 7, 1, "fp16", d=24),
    ("norm", dict(rows=70, width=96, dtype="bf16")),
    ("gelu", dict(rows=11, width=200, dtype="fp32")),
]


@cache
def interpreted(larger: bool) -> tuple[list[dict[str, Any]], str]:
    """Run all cases in the interpreter, which has to be chosen before Triton is imported."""
    lines = "".join(json.dumps(case) + "\n" for case in (LARGER_CASES if larger else CASES))
    script = Path(__file__).with_name("triton_watch.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], input=lines, env=environment, capture_output=True, text=True, check=False
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr[-3000:]


def check(number: int, larger: bool) -> None:
    answers, said = interpreted(larger)
    assert number < len(answers), said
    found = answers[number]
    assert max(found["errors"]) < TOLERANCE[(LARGER_CASES if larger else CASES)[number][1]["dtype"]]
    assert found["same"]


@pytest.mark.parametrize("number", range(len(CASES)), ids=[str(list(values.values())) for _, values in CASES])
def test_outputs_and_gradients_are_the_references(number):
    """No kernel writes outside of its outputs: triton_watch.py would have stopped."""
    check(number, larger=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", range(len(LARGER_CASES)), ids=[str(list(values.values())) for _, values in LARGER_CASES]
)
def test_outputs_and_gradients_of_larger_cases_are_the_references(number):
    check(number, larger=True)


def test_rows_too_long_for_a_tile_are_refused():
    assert "9000 channels" in str(
        norm_unsupported_reason(torch.zeros(1, 9000), None, torch.ones(9000), torch.zeros(9000), 1e-5)
    )
    x, scale = torch.zeros(2, 8), torch.ones(8)
    assert "one precision" in str(norm_unsupported_reason(x, x.double(), scale, scale, 1e-5))


def test_triton_kernels_need_a_gpu():
    qkv = torch.zeros(1, 16, 24)
    token_index = torch.arange(16)[None]
    reason = dict(window.explain(qkv, None, None, token_index[:, 0], token_index, 2))["triton"]
    assert reason == "needs a CUDA device, got cpu"
    q, k, v = torch.zeros(1, 7, 7, 3, 2, 8).unbind(3)
    assert dict(neighborhood.explain(q, k, v, torch.zeros(169, 2), 7, 1))["triton"] == "needs a CUDA device, got cpu"


def test_inputs_larger_than_a_tile_are_refused():
    token_index = torch.zeros(1, 400, dtype=torch.long)
    assert "400 keys" in str(window_unfit(torch.zeros(1, 400, 24), token_index, 1))
    token_index = token_index[:, :64]
    assert "width 256" in str(window_unfit(torch.zeros(1, 64, 768), token_index, 1))
    q, k, v = torch.zeros(1, 40, 40, 3, 1, 8).unbind(3)
    assert "17 cells" in str(neighborhood_unfit(q, k, v, 17))
    assert "one precision" in str(neighborhood_unfit(q, k.double(), v, 7))
    q, k, v = torch.zeros(1, 7, 7, 3, 1, 256).unbind(3)
    assert "width 256" in str(neighborhood_unfit(q, k, v, 7))


def test_tiles_cover_the_batch():
    assert [tile_of(n) for n in (1, 16, 17, 49, 64, 65, 144)] == [16, 16, 32, 64, 64, 128, 256]
    cpu = torch.device("cpu")
    for pieces in (1, 7, 128):
        for others in (1, 3, 4096):
            assert 1 <= share(pieces, others, cpu) <= pieces


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_without_a_gpu(capability):
    """In a process of its own: to the last step, machine code. A kernel too large for a device fails here."""
    script = Path(__file__).with_name("triton_compile.py")
    done = subprocess.run(
        [sys.executable, str(script), str(capability)],
        env={**os.environ, "TRITON_DEFAULT_FP_FUSION": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for line in done.stdout.splitlines():
        name, shared = line.split()
        assert int(shared) <= 99 * 1024, f"{name} needs {shared} bytes of shared memory, small devices have 99 KiB"
    assert len(done.stdout.splitlines()) > 10


@on_gpu
@pytest.mark.parametrize("number", range(len(CASES + LARGER_CASES)))
def test_a_gpu_equals_the_references(number):
    from triton_watch import CASES as MAKERS
    from triton_watch import compare

    kind, values = (CASES + LARGER_CASES)[number]
    run, attends, leaves, dtypes = MAKERS[kind](**values, device="cuda")
    found = compare(run, attends, leaves, dtypes)
    assert max(found["errors"]) < TOLERANCE[values["dtype"]] * 4
    assert found["same"]
