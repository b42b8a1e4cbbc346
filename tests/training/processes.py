"""Runs in processes of their own, forked from a server that has torch loaded, so that one costs no start-up."""

import os
import socket
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess

from vitrail.training.config import TrainConfig


def work(config: TrainConfig, environment: dict[str, str], before: Callable[[], None] | None) -> None:
    """Do what the command does."""
    os.environ.update(environment)
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


def start(config: TrainConfig, before: Callable[[], None] | None = None, **environment: str) -> ForkServerProcess:
    """Start a run; `before` is called in its process first."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["vitrail.training.train", "sklearn.datasets", "torch.distributed.fsdp"])
    process = context.Process(target=work, args=(config, environment, before))
    process.start()
    return process


def start_together(config: TrainConfig, size: int, before: Callable[[], None] | None = None) -> list[ForkServerProcess]:
    """Start a run of several processes, with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [start(config, before, **shared, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(size)]


def finish(*processes: ForkServerProcess) -> list[int]:
    """Wait for runs, and return their exit codes."""
    for process in processes:
        process.join(120)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert None not in codes, "a run hangs"
    return [code for code in codes if code is not None]
