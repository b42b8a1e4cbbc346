"""S8: responses that nobody reads are bounded in memory and time; the queue is bounded in seconds of work."""

import asyncio
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")
from harness import Harness, classifier

from vitrail.serving import guard
from vitrail.serving.batcher import Batcher
from vitrail.serving.job import Job
from vitrail.serving.limits import RESPONSE_CHUNK, Limits
from vitrail.serving.protocol import timed_protocol
from vitrail.serving.refusal import Refusal

FILE = "/static/page.css"


def test_long_responses_count_as_held_until_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The response is written in pieces; its bytes are given back after the last one."""
    monkeypatch.setattr(guard, "RESPONSE_CHUNK", 4096)
    server = Harness([classifier()])
    budget, held, pieces = server.service.budget, list[int](), list[int]()

    async def send(message: Any) -> None:
        held.append(budget.used)
        pieces.append(len(message.get("body", b"")))

    async def get(send: Any) -> None:
        scope = {"type": "http", "method": "GET", "path": FILE, "raw_path": b"", "query_string": b"", "root_path": ""}
        await server.app({**scope, "headers": [(b"host", b"localhost")]}, asyncio.Queue().get, send)

    asyncio.run(get(send))
    size = sum(pieces)
    assert size > 2 * 4096 >= 2 * max(pieces) and set(held) == {size} and budget.used == 0
    budget.limit, messages = size - 1, list[Any]()

    async def keep(message: Any) -> None:
        messages.append(message)

    asyncio.run(get(keep))
    assert messages[0]["status"] == 503 and b"memory" in messages[1]["body"] and budget.used == 0
    server.service.close()
    server.loop.close()


class Clock:
    """A loop whose time is set by the test; it keeps the seconds of the last timer."""

    def __init__(self) -> None:
        self.now, self.seconds = 0.0, 0.0

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, *_: Any) -> Any:
        self.seconds = seconds
        return type("Timer", (), {"cancel": lambda self: None})()


class Flow:
    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


def test_a_response_that_is_read_by_drops_ends() -> None:
    """Each piece is read just before its limit: 64 KB in 30 s instead of the 2 s of 32 KB a second."""
    limits = Limits(write_timeout=30, write_rate=RESPONSE_CHUNK // 2)
    connection: Any = object.__new__(timed_protocol(limits))
    clock = connection.loop = Clock()
    connection.flow, connection.cycle = Flow(), type("Cycle", (), {"response_complete": False})()
    connection._timers, connection._allowance, connection._paused_at = {}, limits.write_timeout, 0.0
    left = []
    for _ in range(3):
        connection.pause_writing()
        left.append(clock.seconds)
        clock.now += 29
        connection.resume_writing()
    assert left == [30, 5, 0]
    connection._allowance = limits.write_timeout
    for _ in range(1000):  # the rate that is asked for is allowed for any length
        connection.pause_writing()
        assert clock.seconds == 30
        clock.now += 2
        connection.resume_writing()


def test_oldest_connections_make_room_in_constant_time() -> None:
    first, second = (timed_protocol(Limits()) for _ in range(2))
    assert first.waiting is not second.waiting


def test_a_queue_is_bounded_by_seconds_of_work() -> None:
    """Recovery after an overload takes wait / (1 - load) seconds: 32 inputs of 0.1 s would take 10 s at 70 %."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        batcher = _batcher(loop)
        jobs = [Job(lambda: 1, "k", list, loop.create_future(), 1e18) for _ in range(32)]
        admitted = 0
        try:
            for job in jobs:
                batcher.submit([job])
                admitted += 1
        except Refusal as refusal:
            assert refusal.status == 429 and refusal.headers()["Retry-After"] == "1"
        assert admitted == 11  # the eleventh sees 1.0 s of work, which is not above the limit
        batcher._seconds = 10.0
        with pytest.raises(Refusal, match="11 inputs, 110"):
            batcher.check_room()
        batcher.cancel(jobs[:8])
        batcher.check_room()  # a batch may always wait
        batcher.close()

    asyncio.run(scenario())


class _Idle:
    """A pool that never decodes."""

    def submit(self, *_: Any) -> None: ...


def _batcher(loop: Any) -> Batcher:
    from vitrail.serving.budget import MemoryBudget
    from vitrail.serving.metrics import Metrics, ModelMetrics

    made = Batcher(loop, _Idle(), ModelMetrics(Metrics(), "m"), MemoryBudget(1), 4, 32, wait=1.0)  # type: ignore[arg-type]
    made._seconds = 0.1
    return made
