"""The balance losses of experts are part of the trained loss, in one process and in several."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from processes import finish, start, start_together
from small_models import small
from torch.nn.functional import cross_entropy

from vitrail.training.log import read_log
from vitrail.training.wrapper import TrainingWrapper

EXPERTS = ("dim=16", "depth=3", "num_heads=2", "patch_size=4", "expert_blocks=1,2", "num_experts=4", "noise=0")


def wrapper(model: Any) -> TrainingWrapper:
    task: Any = SimpleNamespace(model=model, forward=lambda model, images: model(images))
    return TrainingWrapper(task)


def test_the_loss_is_the_sum_over_all_experts() -> None:
    model = small("vmoe").train()
    experts = [module for module in model.modules() if hasattr(module, "auxiliary_loss")]
    images = torch.randn(2, 3, 64, 64)
    torch.manual_seed(0)
    logits, auxiliary = wrapper(model)(images)
    torch.manual_seed(0)
    assert torch.equal(model(images), logits)
    want = torch.stack([module.auxiliary_loss() for module in experts]).sum()
    assert auxiliary is not None and torch.equal(auxiliary, want) and want > 0
    (cross_entropy(logits, torch.tensor([0, 1])) * 0 + auxiliary).backward()
    assert all(module.router.gate.weight.grad.abs().max() > 0 for module in experts), "it reaches the routers"


def test_no_auxiliary_loss_in_evaluation_or_without_experts() -> None:
    images = torch.randn(1, 3, 64, 64)
    assert wrapper(small("vmoe").eval())(images)[1] is None
    assert wrapper(small("vit").train())(images)[1] is None


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_log(folder / "metrics.jsonl", "step")]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_with_it_as_one(tiny: Callable[..., Any], tmp_path: Path, parallel: str) -> None:
    given: dict[str, Any] = {"model": "vmoe_s32_last2", "set": EXPERTS, "drop_path": 0.0, "epochs": 1, "threads": 1}
    one, two = (tiny(**given, parallel=parallel, out=str(tmp_path / name)) for name in ("one", "two"))
    assert finish(start(one), *start_together(two, size=2)) == [0, 0, 0]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
