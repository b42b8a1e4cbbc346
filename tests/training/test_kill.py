"""Killed from outside at random moments, a run that goes on ends with the same bits.

The processes are forked from a server that has torch loaded, so one costs no start-up; `benchmarks/kill.py` does the
same with the command itself, and more often.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import fingerprint, finish, start, wait_for

from vitrail.training.checkpoint import list_states
from vitrail.training.config import TrainConfig
from vitrail.training.log import read_log

Make = Callable[..., TrainConfig]
EVERYTHING: dict[str, Any] = {
    "ema": 0.99,
    "mixup": 0.3,
    "cutmix": 0.5,
    "grad_accum": 2,
    "drop_path": 0.2,
    "epochs": 4,
    "augment": "small-strong",
    "save_steps": 3,
    "threads": 1,
}


def shared_memory(pid: int) -> list[Path]:
    """Return the leftovers of a process in shared memory."""
    return list(Path("/dev/shm").glob(f"torch_{pid}_*"))


@pytest.mark.parametrize("plan", [{"workers": 0}, {"workers": 2, "precision": "bf16", "epochs": 3}], ids=str)
def test_killed_runs_end_with_the_same_bits(tiny: Make, tmp_path: Path, plan: dict[str, Any]) -> None:
    """R1: SIGKILL at random moments, mid-epoch, with everything on that keeps a state."""
    whole, killed = (tiny(**{**EVERYTHING, **plan}, out=str(tmp_path / name)) for name in ("whole", "killed"))
    assert finish(start(whole)) == [0]
    steps = len(read_log(tmp_path / "whole" / "metrics.jsonl", "step"))
    moments, kills, pids = random.Random(0), 0, []
    for target in sorted(moments.sample(range(2, steps - 4), 3)):
        process = start(TrainConfig(**{**vars(killed), "resume": "auto"}))
        if wait_for(tmp_path / "killed", target, process):
            time.sleep(moments.uniform(0, 0.05))
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
            kills += process.exitcode == -signal.SIGKILL
            pids.append(process.pid)
    assert finish(start(TrainConfig(resume=killed.out))) == [0]
    assert kills >= 2
    assert fingerprint(tmp_path / "killed") == fingerprint(tmp_path / "whole")
    assert not [path for path in (tmp_path / "killed" / "state").iterdir() if path.name.startswith(".")]
    for _ in range(200):  # torch's watchdog in a worker looks every few seconds whether its parent lives
        if not any(shared_memory(pid) for pid in pids):
            break
        time.sleep(0.1)
    else:
        raise AssertionError("a killed run left shared memory behind")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves_with_the_conventional_code(
    tiny: Make, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """R5: nothing is lost by a polite stop, although no save was due."""
    changes = {**EVERYTHING, "save_steps": 0, "epochs": 200}
    config = tiny(**changes)
    process = start(config)
    lines = tmp_path / "run" / "results.csv"
    for _ in range(20_000):
        if lines.exists() and lines.stat().st_size > 200:
            break
        time.sleep(0.002)
    os.kill(process.pid or 0, number)
    process.join(60)
    assert process.exitcode == code
    (state,) = list_states(tmp_path / "run" / "state")
    rows = read_log(tmp_path / "run" / "metrics.jsonl", "step")
    assert rows[-1]["step"] == int(state.name[5:]) < 2000


def test_a_second_signal_leaves_at_once(tiny: Make, tmp_path: Path) -> None:
    process = start(tiny(**{**EVERYTHING, "epochs": 10_000, "save_steps": 1}))
    assert wait_for(tmp_path / "run", 2, process)
    os.kill(process.pid or 0, signal.SIGSTOP)  # both signals arrive together when it goes on
    os.kill(process.pid or 0, signal.SIGINT)
    os.kill(process.pid or 0, signal.SIGTERM)
    os.kill(process.pid or 0, signal.SIGCONT)
    process.join(60)
    assert process.exitcode in (130, 143)


def test_a_library_user_keeps_the_signal_handlers(tiny: Make) -> None:
    from vitrail.training.train import train

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    seen = []

    class Look:
        def step(self, moment: object) -> None:
            seen.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *args: None

    train(tiny(epochs=1), Look())  # pyright: ignore[reportArgumentType]
    assert seen and all(handlers == before for handlers in seen)


def test_a_second_run_in_the_folder_is_refused_while_the_first_works(tiny: Make, tmp_path: Path) -> None:
    """R7: and once the first was killed, its lock is no hindrance."""
    from vitrail.errors import ResourceError
    from vitrail.training.train import train

    config = tiny(**{**EVERYTHING, "epochs": 10_000})
    process = start(config)
    assert wait_for(tmp_path / "run", 3, process)
    with pytest.raises(ResourceError, match="in use by process"):
        train(TrainConfig(resume=config.out))
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    second = start(TrainConfig(resume=config.out))
    before = int(list_states(tmp_path / "run" / "state")[0].name[5:])
    assert wait_for(tmp_path / "run", before + 3, second)
    os.kill(second.pid or 0, signal.SIGKILL)
    second.join()


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
