"""Servers under test: `vitrail serve` as a process, and a service in a thread with a predictor that can be blocked."""

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


@contextmanager
def process(
    words: Sequence[str], address: Address, ready: str = "/readyz", env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server process until the block ends; it begins once a path is answered with 200."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a benchmark that is stopped ends its servers
    running = subprocess.Popen(words, env={**os.environ, **(env or {})}, start_new_session=True)
    try:
        _wait(running, f"http://{address.host}:{address.port}{ready}")
        yield running
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGTERM)
        try:
            running.wait(40)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)


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
def vitrail_server(folder: Path, *flags: str) -> Iterator[tuple[Address, "subprocess.Popen[bytes]"]]:
    """Run `vitrail serve` with a model folder."""
    address = free_address()
    words = [sys.executable, "-m", "vitrail.cli", "serve", f"{NAME}:{folder}", "--port", str(address.port), "--quiet"]
    with process([*words, *flags], address) as running:
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
