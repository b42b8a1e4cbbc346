"""GPU benchmark on a CPU: its candidates compute the same, and a missing GPU is reported."""

import argparse

import pytest
import torch

from vitrail.bench.interleaved_timing import Timings


@pytest.fixture(scope="module")
def gpu(benchmarks):
    return benchmarks("gpu")


@pytest.mark.parametrize(("side", "shift"), [(7, 0), (14, 3)])
def test_window_attention_implementations_agree(gpu, side, shift, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda run, **_: run)
    monkeypatch.setattr(gpu, "flex_attention", written_out)
    calls = gpu.window_calls(side, 2, shift, 3, torch.device("cpu"))
    assert set(calls) == {"vitrail", "torch SDPA", "FlexAttention"}
    with torch.no_grad():
        want = calls["torch SDPA"]().float()
        for call in calls.values():
            assert gpu.error_of(call().float(), want) < 2e-2
    for call in calls.values():
        gpu.step(call, True, torch.device("cpu"))


def written_out(q, k, v, score_mod):
    """FlexAttention in loops over nothing: its scores, changed place by place."""
    places = torch.meshgrid(*(torch.arange(n) for n in (*q.shape[:3], k.shape[2])), indexing="ij")
    scores = score_mod((q @ k.mT).float() * q.shape[-1] ** -0.5, *places)
    return (scores.softmax(-1) @ v.float()).to(v.dtype)


def test_the_table_has_ratios_to_the_own_implementation(gpu):
    turns = {"ours": Timings(((0.5,), (0.5,))), "theirs": Timings(((1.0,), (2.0,)))}
    rows = list(gpu.table_rows("a", "ours", turns, {"ours": 0.0, "theirs": None}, 8))
    assert [row[1] for row in rows] == ["ours", "theirs"]
    assert rows[0][2:5] == ["500", "16", ""] and rows[1][5] == "not finite" and rows[1][4].startswith("3")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_a_missing_gpu_is_reported(gpu, capsys):
    assert gpu.main([]) == 2
    assert "PyTorch sees none here" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_models_are_measured(gpu):
    options = argparse.Namespace(
        models=["swin_tiny_patch4_window7_224"], batches=[1], device=torch.device("cuda"), rounds=2, seconds=0.0
    )
    assert gpu.models(options).rows
