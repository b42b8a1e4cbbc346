"""Queue, batches, cancellation, timeouts, failures of a worker."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")
from harness import Harness, Slow, classifier, png

from vitrail.errors import DataError
from vitrail.serving.limits import Limits

ROUTE = "/v1/models/pets/predict"
HEADERS = {"content-type": "image/png"}


@pytest.fixture
def server() -> Iterator[Harness]:
    with Harness([classifier(limits=Limits(timeout=20))]) as harness:
        model = harness.service.models["pets"]
        model.predictor = blocking = Slow(model.predictor)
        yield harness
        blocking.free.set()


def slow(server: Harness) -> Slow:
    return server.service.models["pets"].predictor


async def until(condition: Any) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the condition did not come true")


def posts(server: Harness, count: int, gone: asyncio.Event | None = None) -> list["asyncio.Task[Any]"]:
    return [asyncio.ensure_future(server.send("POST", ROUTE, [png(i)], HEADERS, gone=gone)) for i in range(count)]


async def blocked(server: Harness) -> "asyncio.Task[Any]":
    """Send one request and wait until it is computed."""
    [first] = posts(server, 1)
    await until(slow(server).entered.is_set)
    return first


def pending(server: Harness) -> int:
    return server.service._batchers["pets"].pending


def test_waiting_requests_share_batches_and_a_full_queue_refuses(server: Harness) -> None:
    async def scenario() -> list[Any]:
        first = await blocked(server)
        waiting = posts(server, 16)  # four batches of four
        await until(lambda: pending(server) == 16)
        refused = await server.send("POST", ROUTE, [png()], HEADERS)
        assert (refused.status, refused.code) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        slow(server).free.set()
        return [reply.status for reply in await asyncio.gather(first, *waiting)]

    assert server.wait(scenario()) == [200] * 17
    assert [len(batch) for batch in slow(server).batches] == [1, 4, 4, 4, 4]
    assert pending(server) == 0 and server.service.idle


def test_a_request_of_many_inputs_is_admitted_whole_or_not_at_all(server: Harness) -> None:
    async def scenario() -> None:
        import base64

        first = await blocked(server)
        waiting = posts(server, 14)
        await until(lambda: pending(server) == 14)
        text = base64.b64encode(png()).decode()
        reply = await server.send("POST", ROUTE, [b'{"inputs": ["%s", "%s", "%s"]}' % ((text.encode(),) * 3)],
                                  {"content-type": "application/json"})  # fmt: skip
        assert reply.status == 429 and pending(server) == 14
        slow(server).free.set()
        await asyncio.gather(first, *waiting)

    server.wait(scenario())


def test_requests_whose_client_is_gone_never_run(server: Harness) -> None:
    """S4: of 16 queued requests 12 are dropped, and the running one; the others get their responses."""

    async def scenario() -> list[Any]:
        gone, running = asyncio.Event(), asyncio.Event()
        [first] = posts(server, 1, running)
        await until(slow(server).entered.is_set)
        dropped, kept = posts(server, 12, gone), posts(server, 4)
        await until(lambda: pending(server) == 16)
        gone.set()
        running.set()
        await until(lambda: pending(server) == 4)
        slow(server).free.set()
        replies = await asyncio.gather(first, *dropped, *kept)
        await until(lambda: server.service.idle)
        return [reply.status for reply in replies]

    assert server.wait(scenario()) == [0] * 13 + [200] * 4
    assert sum(len(batch) for batch in slow(server).batches) == 1 + 4
    assert server.service.budget.used == 0
    text = server.get("/metrics").body.decode()
    assert 'vitrail_requests_failure_total{model="pets",reason="client_gone"} 13.0' in text
    assert 'vitrail_pending_inputs{model="pets"} 0.0' in text


def test_the_timeout_covers_queue_and_compute(server: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.service, "limits", Limits(timeout=0.2))

    async def scenario() -> list[Any]:
        first, waiting = await blocked(server), posts(server, 2)
        replies = await asyncio.gather(first, *waiting)
        assert server.service.stuck(0.1) and server.service.status == "stuck"
        slow(server).free.set()
        await until(lambda: server.service.idle)
        return [(reply.status, reply.code) for reply in replies]

    assert server.wait(scenario()) == [(504, "timeout")] * 3
    assert len(slow(server).batches) == 1  # those in the queue never ran
    assert server.get("/readyz").status == 200


class Poisoned:
    """A predictor that fails on batches with certain inputs."""

    def __init__(self, inner: Any, failures: dict[int, BaseException]):
        self.inner, self.failures, self.count = inner, failures, 0

    def load(self, item: Any) -> Any:
        number = self.count
        self.count += 1
        return number, self.inner.load(item)

    def predict(self, batch: list[Any]) -> Any:
        for _, (number, _) in batch:
            if number in self.failures:
                raise self.failures[number]
        return self.inner.predict([(item, loaded) for item, (_, loaded) in batch])


class Ended(BaseException):
    """Ends a thread."""


def test_a_poisonous_input_fails_alone(server: Harness) -> None:
    """S6: bad data, a bug, missing memory; the others of the batch get their responses."""
    model = server.service.models["pets"]
    failures = {1: DataError("not finite"), 3: RuntimeError("secret"), 5: MemoryError()}
    model.predictor = Poisoned(slow(server).inner, dict(failures))

    async def scenario() -> list[int]:
        return [reply.status for reply in await asyncio.gather(*posts(server, 8))]

    assert sorted(server.wait(scenario())) == [200] * 5 + [422, 500, 503]
    assert server.post(ROUTE, png(), "image/png").status == 200


def test_a_dead_worker_is_replaced(server: Harness) -> None:
    model = server.service.models["pets"]
    model.predictor = Poisoned(slow(server).inner, {0: Ended()})
    reply = server.post(ROUTE, png(), "image/png")
    assert (reply.status, reply.code) == (503, "worker_failed") and reply.headers["retry-after"]
    assert [server.post(ROUTE, png(), "image/png").status for _ in range(3)] == [200] * 3
    assert 'vitrail_worker_restarts_total{model="pets"} 1.0' in server.get("/metrics").body.decode()


def test_a_draining_server_is_not_ready_and_accepts_nothing_new(server: Harness) -> None:
    async def scenario() -> int:
        first = await blocked(server)
        server.service.draining = True
        ready = await server.send("GET", "/readyz")
        refused = await server.send("POST", ROUTE, [png()], HEADERS)
        assert (ready.status, ready.json()["status"]) == (503, "draining")
        assert (refused.status, refused.code, refused.headers["connection"]) == (503, "draining", "close")
        slow(server).free.set()
        return (await first).status

    assert server.wait(scenario()) == 200


def test_calls_and_streams_run_alone_on_the_thread_of_the_model(server: Harness) -> None:
    class Request:
        def __init__(self) -> None:
            self.scope: dict[str, Any] = {}
            self.gone = asyncio.Event()

        async def receive(self) -> Any:
            await self.gone.wait()
            return {"type": "http.disconnect"}

    async def scenario() -> None:
        service, model, request = server.service, server.service.models["pets"], Request()
        outcome = await service.call(model, lambda: 42, request)  # type: ignore[arg-type]
        assert outcome.value == 42 and outcome.compute_ms >= 0
        assert [n async for n in service.stream(model, lambda: iter(range(3)), request)] == [0, 1, 2]  # type: ignore[arg-type]
        with pytest.raises(DataError):
            await service.call(model, lambda: (_ for _ in ()).throw(DataError("x")), request)  # type: ignore[arg-type]
        seen = []

        def endless() -> Iterator[int]:
            while True:
                seen.append(1)
                yield 1

        async for _ in service.stream(model, endless, request):  # type: ignore[arg-type]
            break
        await until(lambda: service.idle)

    server.wait(scenario())
