"""Word loss: chunks against the specification, values and gradients."""

from importlib import import_module
from typing import Any

import pytest
import torch

from vitrail.kernels.word_loss.reference import word_loss as reference

chunked: Any = import_module("vitrail.kernels.word_loss.chunked")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("biased", [False, True])
def test_chunks_equal_the_reference(smoothing: float, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "CHUNK", 7 * 30)  # chunks of 7 tokens; the last has 2
    monkeypatch.setattr(chunked, "GROUP", 14 * 30)  # groups of 2 chunks
    found = []
    for function in (reference, chunked.word_loss):
        torch.manual_seed(0)
        x, table = torch.randn(23, 8, requires_grad=True), torch.randn(30, 8, requires_grad=True)
        bias = torch.randn(30, requires_grad=True) if biased else None
        loss, nll = function(x, table, torch.randint(30, (23,)), smoothing, bias)
        (3 * loss).backward()
        found.append([loss, nll, x.grad, table.grad, *([] if bias is None else [bias.grad])])
        assert not nll.requires_grad
    for want, got in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_no_tokens() -> None:
    x, table = torch.zeros(0, 8, requires_grad=True), torch.randn(30, 8, requires_grad=True)
    loss, _ = chunked.word_loss(x, table, torch.zeros(0, dtype=torch.long), 0.1)
    loss.backward()
    assert loss.item() == 0 and table.grad is not None and not table.grad.any()


def test_bf16_autocast() -> None:
    x, table, targets = torch.randn(9, 16), torch.randn(50, 16, requires_grad=True), torch.arange(9)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = chunked.word_loss(x, table, targets, 0.1)
    loss.backward()
    assert table.grad is not None and table.grad.dtype == torch.float32
    torch.testing.assert_close(loss, reference(x, table, targets, 0.1).loss, rtol=1e-2, atol=1e-2)
