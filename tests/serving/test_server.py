"""A server on a socket: drain, slow clients, broken HTTP."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")
from harness import Slow, classifier, png

from vitrail.serving.access import access_rules
from vitrail.serving.limits import Limits
from vitrail.serving.server import listen, make_server, run_server
from vitrail.serving.service import Service

ROUTE = "/v1/models/pets/predict"
LIMITS = Limits(header_timeout=0.3, write_timeout=0.3, connections=6, grace=0.2, drain=5)


class Running:
    """A server in a thread."""

    def __init__(self, limits: Limits = LIMITS):
        self.service = Service([classifier(limits=limits)], limits)
        self.socket = listen("127.0.0.1", 0)
        self.port = self.socket.getsockname()[1]
        self.server = make_server(self.service, access_rules("127.0.0.1", None, limits, set()))
        self.lost: int | None = None
        self.thread = Thread(target=self._run, daemon=True)
        self.thread.start()
        self.loop: Any = None
        while self.status("GET", "/readyz") != 200:
            pass

    def _run(self) -> None:
        self.lost = run_server(self.server, self.socket)

    def connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        return made

    def exchange(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {"Content-Type": "image/png"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def status(self, method: str, path: str, body: bytes | None = None) -> int:
        return self.exchange(method, path, body)[0]

    def drain(self) -> None:
        loop = self.service._batchers["pets"].loop
        loop.call_soon_threadsafe(self.server.drain)

    def end(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    server = Running()
    yield server
    server.end()


def _send(server: Running, answers: list[Any]) -> None:
    try:
        answers.append(server.status("POST", ROUTE, png()))
    except OSError:
        answers.append(0)


def blocked(server: Running) -> tuple[Slow, list[Any], Thread]:
    """Block the model of a server with one request."""
    model, answers = server.service.models["pets"], list[Any]()
    model.predictor = slow = Slow(model.predictor)
    sender = Thread(target=_send, args=(server, answers))
    sender.start()
    assert slow.entered.wait(10)
    return slow, answers, sender


def test_accepted_requests_are_answered_before_the_server_ends() -> None:
    """S5: readiness is 503 at once, new requests are refused, the accepted one is answered."""
    server = Running()
    slow, answers, sender = blocked(server)
    server.drain()
    for _ in range(100):
        status, body = server.exchange("GET", "/readyz")
        if status == 503:
            break
    assert (status, json.loads(body)) == (503, {"status": "draining"})
    assert server.status("POST", ROUTE, png()) == 503
    assert server.thread.is_alive()
    slow.free.set()
    sender.join(10)
    server.thread.join(10)
    assert answers == [200] and server.lost == 0 and not server.thread.is_alive()


def test_a_drain_that_takes_too_long_ends_and_counts_what_is_lost() -> None:
    server = Running(Limits(grace=0.1, drain=0.3))
    slow, _, sender = blocked(server)
    server.drain()
    server.thread.join(10)
    assert server.lost == 1 and not server.thread.is_alive()
    slow.free.set()
    sender.join(10)


def test_headers_that_come_slowly_are_cut_off(running: Running) -> None:
    with running.connect() as slow:
        slow.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ")
        assert slow.recv(10) == b""  # closed by the server


def test_idle_connections_make_room_for_new_ones(running: Running) -> None:
    idle = [running.connect() for _ in range(20)]
    assert running.status("GET", "/livez") == 200
    for each in idle:
        each.close()


def test_unread_responses_are_cut_off(running: Running) -> None:
    with running.connect() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        try:
            for _ in range(3000):
                deaf.sendall(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        except OSError:
            return
        for _ in range(1000):
            if not running.server.server_state.connections:
                return
            asyncio.run(asyncio.sleep(0.01))
        pytest.fail("the connection stays open")


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: x\r\n\r\n",
        b"POST /v1/models/pets/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n",
        b"A" * 70_000,
    ],
    ids=["TLS", "no host", "two hosts", "broken chunk", "endless line"],
)
def test_broken_http_is_answered_once(running: Running, raw: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with running.connect() as connection:
        connection.sendall(raw)
        answer = b""
        while data := connection.recv(4096):
            answer += data
    assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1") == 1
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.slow
def test_the_command_ends_with_0_after_sigterm(tmp_path: Path) -> None:
    from vitrail.weights.folder import save_model

    folder = save_model(classifier().model, tmp_path / "pets")
    words = [sys.executable, "-m", "vitrail.cli", "serve", str(folder), "--port", "0", "--no-optimize"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("ready: http://127.0.0.1:" in line for line in process.stderr)
        process.terminate()
        assert process.wait(20) == 0
