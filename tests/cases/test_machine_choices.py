"""Choices that depend on the machine: loading processes, plain or optimized model, remaining time; doctor."""

import re
from io import StringIO
from types import SimpleNamespace

import pytest
import torch

from vitrail.cli import main
from vitrail.cli.error_handling import explain_failure
from vitrail.cli.table import print_table
from vitrail.fused import measured_speed
from vitrail.fused.measured_speed import remembered, trial_key
from vitrail.models import create_model
from vitrail.training import setup
from vitrail.training.config import TrainConfig
from vitrail.training.distributed import SingleProcess
from vitrail.training.reporters import StepStats, Throughput
from vitrail.training.trainer import Trainer


@pytest.mark.parametrize(
    ("device", "cores", "ranks", "expected"), [("cpu", 64, 1, 0), ("cuda", 16, 1, 8), ("cuda", 8, 4, 1)]
)
def test_loading_processes_by_machine(monkeypatch, device, cores, ranks, expected):
    monkeypatch.setattr(setup, "usable_cores", lambda: float(cores))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert setup.default_workers(SimpleNamespace(device=torch.device(device), size=ranks)) == expected


@pytest.mark.parametrize(("given", "packed", "asked"), [(None, False, [0, 8]), (None, True, [0]), (3, False, [3])])
def test_given_and_default_loading_processes(monkeypatch, given, packed, asked):
    shares = []

    def loaders(share, batch, eval_batch):
        shares.append(share.workers)
        return SimpleNamespace(dataset=SimpleNamespace(pixels=0 if packed else None)), None

    monkeypatch.setattr(setup, "default_workers", lambda world: 8)
    world = SingleProcess(torch.device("cpu"))
    setup.loaders(TrainConfig(data="digits", workers=given, batch=4), world, SimpleNamespace(loaders=loaders))
    assert shares == asked


def test_the_median_of_several_trials_decides(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    model = create_model("vit_tiny_patch16_224", num_classes=2, depth=1, dim=24, num_heads=1, image_size=16)
    key = trial_key(model, torch.zeros(2, 3, 16, 16), "fp32")
    assert key != trial_key(model, torch.zeros(2, 3, 32, 32), "fp32") and key != trial_key(
        model, torch.zeros(2, 3, 16, 16), "bf16"
    )
    assert remembered(key, 3.1) == 3.1
    assert remembered(key, 3.0) == pytest.approx(3.05)
    assert remembered(key, 0.63) == 3.0  # one slow moment of the machine does not turn the choice
    (path,) = (tmp_path / "speed").glob("*.json")
    path.write_text("[1, ")
    assert remembered(key, 2.0) == 2.0
    for _ in range(20):
        remembered(key, 5.0)
    assert path.read_text().count("5.0") == measured_speed.MOST


def test_remaining_time_has_the_end_of_the_run(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("vitrail.training.reporters.time.monotonic", lambda: now[0])
    pace = Throughput()
    for step in (1, 2):
        now[0] = 10.0 * step
        pace.take(StepStats(step, 0.0, step / 4, 1.0, 1e-3, 8, finish=44.0))
    assert pace.left() == pytest.approx(20 + 44)


def test_the_end_is_estimated_from_a_validation():
    run = SimpleNamespace(sample_seconds=0.1, folder="r", final_samples=100, report_samples=200, save_seconds=3.0)
    assert Trainer.finish_seconds(run) > 0.1 * (100 + 200) + 3.0
    assert Trainer.finish_seconds(SimpleNamespace(sample_seconds=0.0, folder="r", final_samples=9)) == 0


def test_doctor_prints_a_line_a_kernel(capsys):
    main(["doctor", "--no-speed"])
    short = capsys.readouterr().out
    main(["doctor", "--no-speed", "--all"])
    whole = capsys.readouterr().out
    assert len(short.splitlines()) < len(whole.splitlines()) - 10 and "doctor --all" in short
    table = short.partition("kernels\n")[2].splitlines()
    assert table[0].split() == ["kernel", "device", "float32", "bfloat16"] and max(map(len, table)) <= 80


def test_allocator_messages_are_not_printed():
    raw = "[enforce fail at alloc_cpu.cpp:127] can't allocate memory: you tried to allocate 30000000000 bytes."
    said, code = explain_failure(RuntimeError(raw))
    assert code == 4 and said is not None and said.startswith("Out of memory: 27.9 GiB more were needed.")


class Terminal(StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("length", [20, 70])
def test_tables_fit_a_terminal_of_eighty_columns(monkeypatch, length):
    """Paths stay whole where there is room, numbers always."""
    screen = Terminal()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout", screen)
    path, other = "p" * length, "bee 6.9%, wasp with a long name 0.1%"
    print_table(["image", "class", "probability", "next"], [[path, "ant", "93.1%", other]], right=["probability"])
    lines = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue()).splitlines()
    assert max(map(len, lines)) <= 80 and any("93.1%" in line for line in lines)
    assert any(path in line for line in lines) == (length <= 48)
