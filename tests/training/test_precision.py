"""`precision=auto` selects the hardware's compute dtype, and a run keeps its choice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from vitrail.native import cpu_features as room
from vitrail.native.cpu_features import computes_bf16
from vitrail.training.config import TrainConfig
from vitrail.training.distributed import SingleProcess
from vitrail.training.log import read_log
from vitrail.training.precision import choose_precision, slowness
from vitrail.training.reporters import LineReporter
from vitrail.training.signals import Interrupted, StopRequest
from vitrail.training.train import train

Make = Callable[..., TrainConfig]
CPU = torch.device("cpu")
WITH, WITHOUT = ("avx2", "avx512f", "avx512_bf16"), ("avx2", "avx512f")


def processor(monkeypatch: pytest.MonkeyPatch, *sets: str) -> None:
    monkeypatch.setattr(room, "cpu_features", lambda: sets)


@pytest.mark.parametrize(
    ("sets", "bf16"),
    [(WITH, True), (("amx_tile", "amx_bf16"), True), (WITHOUT, False), (("amx_tile", "amx_int8"), False), ((), False)],
)
def test_a_processor_is_known_by_its_instructions(
    monkeypatch: pytest.MonkeyPatch, sets: tuple[str, ...], bf16: bool
) -> None:
    processor(monkeypatch, *sets)
    assert computes_bf16(CPU) is bf16
    assert choose_precision("auto", SingleProcess(CPU)) == ("bf16" if bf16 else "fp32")
    assert (slowness("bf16", CPU) is None) is bf16 and slowness("fp32", CPU) is None


@pytest.mark.parametrize(("capability", "bf16"), [((7, 5), False), ((8, 0), True), ((8, 9), True), ((9, 0), True)])
def test_a_gpu_is_known_by_its_capability(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], bf16: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert computes_bf16(torch.device("cuda", 0)) is bf16


def test_other_devices_compute_in_fp32() -> None:
    assert choose_precision("auto", SingleProcess(torch.device("mps"))) == "fp32"


def test_one_process_that_lacks_bf16_decides_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pair(SingleProcess):
        def largest(self, values: list[float]) -> list[float]:
            return [max(value, 1.0) for value in values]  # the other process lacks it

    processor(monkeypatch, *WITH)
    assert choose_precision("auto", Pair(CPU, 0, 2)) == "fp32"
    assert choose_precision("bf16", Pair(CPU, 0, 2)) == "bf16"


class After(LineReporter):
    """Requests a stop after some updates."""

    def __init__(self, stop: StopRequest, updates: int):
        super().__init__()
        self.request, self.updates = stop, updates

    def step(self, moment: Any) -> None:
        if moment.step == self.updates:
            self.request.request(143)


def stopped(config: TrainConfig, updates: int) -> None:
    stop = StopRequest()
    with pytest.raises(Interrupted):
        train(config, After(stop, updates), stop)


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_log(folder / "metrics.jsonl", "step")]


@pytest.mark.parametrize(("here", "there", "kept"), [(WITH, WITHOUT, "bf16"), (WITHOUT, WITH, "fp32")])
def test_a_run_that_moves_to_another_machine_keeps_its_arithmetic(
    tiny: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    here: tuple[str, ...],
    there: tuple[str, ...],
    kept: str,
) -> None:
    """Its losses are those of a run on one machine, to the bit; the requested precision is in the config."""
    processor(monkeypatch, *here)
    train(tiny(precision="auto", epochs=1, out=str(tmp_path / "stayed")))
    stopped(tiny(precision="auto", epochs=1, out=str(tmp_path / "moved")), updates=4)
    processor(monkeypatch, *there)
    capsys.readouterr()
    train(TrainConfig(resume=str(tmp_path / "moved")), LineReporter())
    said = capsys.readouterr().out
    assert losses(tmp_path / "moved") == losses(tmp_path / "stayed")
    assert ("only emulates" in said) == (kept == "bf16") and f"batch 120, {kept}, into" in said
    assert yaml.safe_load((tmp_path / "moved" / "config.yaml").read_text())["precision"] == "auto"
    assert json.loads((tmp_path / "moved" / "env.json").read_text())["precision"] == kept


def test_the_two_arithmetics_differ(tiny: Make, tmp_path: Path) -> None:
    """Else the test above would prove nothing."""
    for precision in ("fp32", "bf16"):
        train(tiny(precision=precision, epochs=1, out=str(tmp_path / precision)))
    assert losses(tmp_path / "fp32") != losses(tmp_path / "bf16")
