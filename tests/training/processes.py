"""Runs in processes of their own, forked from a server that has torch loaded, so that one costs no start-up."""

import hashlib
import json
import os
import socket
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from vitrail.training.checkpoint import list_states
from vitrail.training.config import RunConfig, TrainConfig, config_class
from vitrail.training.log import read_log

Run = TrainConfig | dict[str, Any]
"""A run of a classifier, or the fields of another task's run: config classes of tasks cannot be pickled."""


def work(run: Run, environment: dict[str, str], before: Callable[[], None] | None) -> None:
    """Run the command."""
    os.environ.update(environment)
    config: RunConfig = config_class(run.pop("task"))(**run) if isinstance(run, dict) else run
    from vitrail.errors import VitrailError
    from vitrail.training.signals import Interrupted, StopRequest, on_signals
    from vitrail.training.train import train

    if before is not None:
        before()
    try:
        with on_signals(StopRequest()) as stop:
            train(config, stop=stop)
    except Interrupted as stopped:
        os._exit(stopped.code)
    except VitrailError as error:
        os._exit(error.exit_code)


def start(config: Run, before: Callable[[], None] | None = None, **environment: str) -> ForkServerProcess:
    """Start a run; `before` is called in its process first."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["vitrail.training.train", "sklearn.datasets", "torch.distributed.fsdp"])
    process = context.Process(target=work, args=(config, environment, before))
    process.start()
    return process


def start_together(config: Run, size: int, before: Callable[[], None] | None = None) -> list[ForkServerProcess]:
    """Start a run of several processes, with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [start(config, before, **shared, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(size)]


def finish(*processes: ForkServerProcess, patience: float = 120) -> list[int]:
    """Wait for runs, at most `patience` seconds for each, and return their exit codes."""
    for process in processes:
        process.join(patience)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert None not in codes, "a run hangs"
    return [code for code in codes if code is not None]


def wait_for(folder: Path, step: int, process: ForkServerProcess) -> bool:
    """Wait until a run has saved a step; False when it ended before."""
    for _ in range(20_000):
        if any(int(path.name[5:]) >= step for path in list_states(folder / "state")):
            return True
        if process.exitcode is not None:
            return False
        time.sleep(0.002)
    raise AssertionError("the run saves nothing")


def fingerprint(folder: Path) -> dict[str, str]:
    """Return the files that two equal runs share: weights, moments, average, and every step of the log."""
    state = list_states(folder / "state")[0]
    files = [*(folder / "weights").glob("*/model.safetensors"), *state.glob("*.safetensors")]
    prints = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    rows = read_log(folder / "metrics.jsonl", "step")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    epochs = [{**row, "seconds": 0} for row in read_log(folder / "metrics.jsonl", "epoch")]
    return {**prints, "steps": json.dumps(rows), "epochs": json.dumps(epochs)}
