"""Refusals before HTTP is parsed: the same response as on the usual way, wherever the request is cut."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")
from harness import Harness, Reply, classifier

from vitrail.serving.access import access_rules
from vitrail.serving.early import EarlyRefusals
from vitrail.serving.server import make_server

BODY = json.dumps({"input": "A" * 300}).encode()
HEAD = b"POST /v1/models/pets/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(BODY)
PLAIN = HEAD + b"X-Request-Id: mine.1\r\n\r\n" + BODY
UNUSUAL = HEAD + b"X_Odd: 1\r\nX-Request-Id: mine.1\r\n\r\n" + BODY  # an underscore is left to h11
NEXT = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def full() -> Iterator[Harness]:
    """A server whose queue is full."""
    with Harness([classifier()]) as server:
        batcher = server.service._batchers["pets"]
        batcher._loading = batcher.capacity
        yield server
        batcher._loading = 0


class Transport(asyncio.Transport):
    """A connection whose output is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.closed = b"", False

    def write(self, data: Any) -> None:
        self.out += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def served(server: Harness, chunks: list[bytes], count: int = 1, token: str | None = None) -> tuple[list[Reply], Any]:
    """Return the responses on one connection to which chunks arrive, and the connection."""
    rules = access_rules("127.0.0.1", token, server.service.limits, set())
    made = make_server(server.service, rules)

    async def scenario() -> tuple[bytes, Any]:
        made.config.load()
        made.server_state.default_headers = [(b"date", b"now")]
        protocol: Any = made.config.http_protocol_class
        connection = protocol(config=made.config, server_state=made.server_state, app_state={})
        transport = Transport()
        connection.connection_made(transport)
        for chunk in chunks:
            connection.data_received(chunk)
            for _ in range(20):
                await asyncio.sleep(0)
        for _ in range(500):
            if transport.out.count(b"HTTP/1.1 ") >= count and connection.waits:
                break
            await asyncio.sleep(0.002)
        connection.connection_lost(None)
        return transport.out, connection

    out, connection = server.wait(scenario())
    replies = []
    while out:
        head, _, out = out.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        size = int(headers["content-length"])
        replies.append(Reply(int(first.split()[1]), headers, out[:size]))
        out = out[size:]
    return replies, connection


def refusals(server: Harness) -> list[str]:
    lines = server.get("/metrics").body.decode().splitlines()
    return [
        line
        for line in lines
        if ('"429"} ' in line and "_total" in line) or ("failure_total" in line and "queue_full" in line)
    ]


def test_the_response_is_that_of_the_usual_way(full: Harness) -> None:
    """Status, headers in any order, body, request id and counters."""
    [[early], one], [[usual], two] = served(full, [PLAIN]), served(full, [UNUSUAL])
    assert one.cycle is None and two.cycle is not None  # the second request alone was parsed
    assert early.status == usual.status == 429 and early.body == usual.body
    assert early.headers == usual.headers and early.headers["date"] == "now"
    assert early.headers["x-request-id"] == early.json()["error"]["request_id"] == "mine.1"
    assert refusals(full) == [
        'vitrail_http_responses_total{route="/v1/models/{name}/predict",status="429"} 2.0',
        'vitrail_requests_failure_total{model="pets",reason="queue_full"} 2.0',
    ]


@pytest.mark.parametrize("cut", [1, 20, len(PLAIN) - len(BODY) - 2, len(PLAIN) - len(BODY), len(PLAIN) - 7, len(PLAIN)])
def test_a_request_may_arrive_in_pieces_and_another_follows(full: Harness, cut: int) -> None:
    """The body of a refused request is dropped, and no byte of the next one."""
    stream = PLAIN + NEXT + PLAIN
    for chunks in ([PLAIN[:cut], stream[cut:]], [PLAIN[:cut], PLAIN[cut:], NEXT, PLAIN]):
        replies, connection = served(full, [each for each in chunks if each], 3)
        assert [reply.status for reply in replies] == [429, 200, 429]
        assert connection._unread == 0 and full.service.budget.used == 0


def test_a_body_that_does_not_arrive_ends_the_connection(full: Harness) -> None:
    """The time of a request is the limit; while it waits the connection makes room for others."""
    _, connection = served(full, [PLAIN[:-9]])
    assert connection._unread == 9 and connection.cycle is None

    async def scenario() -> None:
        connection._start("header", 0.01)
        await asyncio.sleep(0.05)

    connection.transport.closed = False
    full.wait(scenario())
    assert connection.transport.closed


@pytest.mark.parametrize(
    "raw",
    [
        PLAIN.replace(b"localhost", b"example.org"),
        PLAIN.replace(b"Host: localhost\r\n", b""),
        PLAIN.replace(b"X-Request-Id: mine.1", b"Host: localhost"),
        PLAIN.replace(b"X-Request-Id: mine.1", b"Origin: https://example.org"),
        PLAIN.replace(b"X-Request-Id: mine.1", b"Content-Length: 1"),
        PLAIN.replace(b"X-Request-Id: mine.1", b"Transfer-Encoding: chunked"),
        PLAIN.replace(b"X-Request-Id: mine.1", b"Expect: 100-continue"),
        PLAIN.replace(b"X-Request-Id: mine.1", b"Connection: close"),
        PLAIN.replace(b"X-Request-Id: mine.1", b"X-Request-Id : mine.1"),
        PLAIN.replace(b"X-Request-Id: mine.1", b"X-A: \x01"),
        PLAIN.replace(b"X-Request-Id: mine.1", b"X-A: 1\r\n folded"),
        PLAIN.replace(b"X-Request-Id: mine.1", b"X-A: " + b"a" * 9000),
        PLAIN.replace(b"Content-Length: ", b"Content-Length: +"),
        PLAIN.replace(b"Content-Length: ", b"Content-Length: 99999999999"),
        PLAIN.replace(b"/pets/", b"/cars/"),
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        PLAIN.replace(b"POST", b"PUT"),
        PLAIN.replace(b"/predict", b"/predict/"),
        PLAIN.replace(b"/predict", b"/predict?" + b"a" * 3000),
        PLAIN + b"x",
        PLAIN[:40],
    ],
)
def test_what_is_unusual_goes_the_usual_way(full: Harness, raw: bytes) -> None:
    rules = access_rules("127.0.0.1", None, full.service.limits, set())
    early = EarlyRefusals(full.service, rules)
    assert early.answer(PLAIN, None, []) is not None
    assert early.answer(raw, None, []) is None


def test_nobody_without_the_token_learns_that_a_queue_is_full(full: Harness) -> None:
    token = "a-token-of-twenty-one"
    named = PLAIN.replace(b"X-Request-Id: mine.1", f"Authorization: Bearer {token}".encode())
    replies = [served(full, [raw], token=token)[0][0].status for raw in (PLAIN, named)]
    assert replies == [401, 429]


def test_a_queue_with_room_and_a_draining_server_answer_on_the_usual_way(full: Harness) -> None:
    early = EarlyRefusals(full.service, access_rules("127.0.0.1", None, full.service.limits, set()))
    full.service.draining = True
    assert early.answer(PLAIN, None, []) is None
    full.service.draining = False
    assert early.answer(PLAIN, None, []) is not None
    full.service._batchers["pets"]._loading = 0
    assert early.answer(PLAIN, None, []) is None
