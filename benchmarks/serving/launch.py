"""Servers under test: `vitrail serve` as a process, and a service in a thread with a predictor that can be blocked."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import torch
from load import Address

import vitrail
from vitrail.serving.access import access_rules
from vitrail.serving.limits import Limits
from vitrail.serving.served_model import ServedModel, serve_model
from vitrail.serving.server import listen, make_server, run_server
from vitrail.serving.service import Service
from vitrail.weights.folder import save_model

NAME = "model"


def make_model(side: int = 96, variant: str = "vit_tiny_patch16_224", **overrides: Any) -> Any:
    """Return a classifier with random weights."""
    torch.manual_seed(0)
    model = vitrail.create_model(variant, num_classes=10, image_size=side, **overrides).eval()
    model.metadata = {"labels": tuple(f"class {i}" for i in range(10))}
    return model


def make_folder(folder: Path, side: int = 96, **overrides: Any) -> Path:
    """Write a model folder."""
    return Path(save_model(make_model(side, **overrides), folder / f"side{side}"))


MOST = 900.0
"""Seconds after which a server is killed, whatever its benchmark does."""
_WATCH = """
import os, select, signal, sys
group = int(sys.stdin.readline())
if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
    own = os.sched_getparam(0).sched_priority  # above servers that never wait
    os.sched_setscheduler(0, os.sched_getscheduler(0), os.sched_param(min(own + 1, 99)))
heard, _, _ = select.select([sys.stdin], [], [], float(sys.argv[1]))
if not heard or not sys.stdin.readline():
    os.killpg(group, signal.SIGKILL)
"""


@contextmanager
def process(
    words: Sequence[str],
    address: Address,
    ready: str = "/readyz",
    env: Mapping[str, str] | None = None,
    most: float = MOST,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server process, in a group of its own, until the block ends; it begins once a path is answered with 200.

    A second process kills the group after `most` seconds, and as soon as this one is gone, however it ends.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a benchmark that is stopped ends its servers
    watch = subprocess.Popen([sys.executable, "-S", "-c", _WATCH, str(most)], stdin=subprocess.PIPE, process_group=0)
    assert watch.stdin is not None
    running = subprocess.Popen(words, env={**os.environ, **(env or {})}, start_new_session=True)
    watch.stdin.write(f"{running.pid}\n".encode())
    watch.stdin.flush()
    try:
        _wait(running, f"http://{address.host}:{address.port}{ready}")
        yield running
    finally:
        end(running)
        with contextlib.suppress(BrokenPipeError):
            watch.stdin.write(b"ended\n")
            watch.stdin.close()
        watch.wait()


def end(running: "subprocess.Popen[bytes]", seconds: float = 40) -> None:
    """End a server and all processes of its group: SIGTERM, and SIGKILL to what is left of it."""
    for sent, wait in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(wait)


def _wait(running: "subprocess.Popen[bytes]", url: str, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if running.poll() is not None:
            raise SystemExit(f"the server ended with {running.returncode}")
        try:
            with urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (URLError, OSError):
            time.sleep(0.1)
    raise SystemExit("the server did not become ready")


def free_address() -> Address:
    """Return an address that nobody listens on."""
    with listen("127.0.0.1", 0) as held:
        return Address(*held.getsockname()[:2])


@contextmanager
def vitrail_server(
    folder: Path, *flags: str, most: float = MOST
) -> Iterator[tuple[Address, "subprocess.Popen[bytes]"]]:
    """Run `vitrail serve` with a model folder, for at most that many seconds."""
    address = free_address()
    words = [sys.executable, "-m", "vitrail.cli", "serve", f"{NAME}:{folder}", "--port", str(address.port), "--quiet"]
    with process([*words, *flags], address, most=most) as running:
        yield address, running


class Blocked:
    """A predictor whose batches wait until `free` is set."""

    def __init__(self, inner: Any):
        self.inner, self.free, self.entered, self.computed = inner, Event(), Event(), 0

    def load(self, item: Any) -> Any:
        """Decode."""
        return self.inner.load(item)

    def predict(self, batch: Sequence[Any]) -> Any:
        """Wait, then predict."""
        self.entered.set()
        assert self.free.wait(60)
        self.computed += len(batch)
        return self.inner.predict(batch)


class LocalServer:
    """A server in a thread of this process, on a port of its own; `with` starts and ends it."""

    def __init__(self, limits: Limits, **options: Any):
        values = {"batch": 8, "optimize": False, **options}
        self.model: ServedModel = serve_model(NAME, make_model(32, depth=1, dim=24, num_heads=2), limits, **values)
        self.service = Service([self.model], limits)
        rules = access_rules("127.0.0.1", None, limits, self.service.sessions)
        self.server, self.ready = make_server(self.service, rules, self._prepared), Event()
        self.socket = listen("127.0.0.1", 0)
        self.address = Address(*self.socket.getsockname()[:2])
        self.thread = Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
        run_server(self.server, self.socket)

    def _prepared(self) -> None:
        self.blocked = Blocked(self.model.predictor)
        self.model.predictor = self.blocked
        self.ready.set()

    def __enter__(self) -> "LocalServer":
        self.thread.start()
        assert self.ready.wait(120)
        return self

    def __exit__(self, *_: object) -> None:
        self.blocked.free.set()
        self.server.should_exit = True
        self.thread.join(30)


def resident(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
