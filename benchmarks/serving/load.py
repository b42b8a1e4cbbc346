"""HTTP load: an open-loop Poisson client and a closed-loop one, on plain asyncio streams.

Open loop: requests leave at times drawn beforehand, whether or not earlier ones were answered, and their latency counts
from that time. A closed loop waits for responses before it sends on, so it hides overload; it measures capacity only.
"""

import asyncio
import base64
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from PIL import Image


class Address(NamedTuple):
    """Host and port of a server."""

    host: str
    port: int


class Sample(NamedTuple):
    """One request: when it was due, seconds until its answer, status (0: no answer), seconds from sending."""

    due: float
    seconds: float
    status: int
    sent: float
    headers: dict[str, str]
    body: bytes


@dataclass
class Client:
    """Connections to one server, kept open and used again."""

    address: Address
    idle: list[Any] = field(default_factory=list)

    async def exchange(self, raw: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send a request and return status, headers and body; status 0 if the connection broke."""
        kept, writer = bool(self.idle), None
        try:
            reader, writer = self.idle.pop() if kept else await asyncio.open_connection(*self.address)
            writer.write(raw)
            head = await reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError):
            if writer is not None:
                writer.transport.abort()
            return (await self.exchange(raw)) if kept else (0, {}, b"")  # a kept connection may have been closed
        try:
            status, headers = parse_head(head)
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        except (OSError, asyncio.IncompleteReadError):
            writer.transport.abort()
            return 0, {}, b""
        if headers.get("connection") == "close":
            writer.close()
        else:
            self.idle.append((reader, writer))
        return status, headers, body

    async def close(self) -> None:
        """Close the idle connections."""
        for _, writer in self.idle:
            writer.transport.abort()
        self.idle.clear()
        await asyncio.sleep(0.01)


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Return status and headers."""
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


def request(method: str, path: str, body: bytes = b"", kind: str = "application/json", **headers: str) -> bytes:
    """Return the bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body:
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def json_requests(path: str, images: Sequence[bytes]) -> list[bytes]:
    """Return a request in JSON for each image."""
    bodies = (json.dumps({"input": base64.b64encode(each).decode()}).encode() for each in images)
    return [request("POST", path, body) for body in bodies]


async def open_loop(
    client: Client, requests: Sequence[bytes], rate: float, seconds: float, seed: int = 0
) -> list[Sample]:
    """Send requests at Poisson times and return all samples in order."""
    rng = np.random.default_rng(seed)
    count = max(int(rate * seconds), 1)
    due = np.cumsum(rng.exponential(1 / rate, count))
    start, tasks = perf_counter() + 0.05, []

    async def one(number: int) -> Sample:
        sent = perf_counter()
        status, headers, body = await client.exchange(requests[number % len(requests)])
        now = perf_counter()
        return Sample(float(due[number]), now - start - float(due[number]), status, now - sent, headers, body)

    for number in range(count):
        wait = start + due[number] - perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.ensure_future(one(number)))
    return await asyncio.gather(*tasks)


async def closed_loop(client: Client, requests: Sequence[bytes], users: int, seconds: float) -> float:
    """Return responses per second of `users` that each wait for their response before the next request."""
    start, done = perf_counter(), 0

    async def user(number: int) -> None:
        nonlocal done
        while perf_counter() - start < seconds:
            status, _, _ = await client.exchange(requests[number % len(requests)])
            done += status == 200 and perf_counter() - start < seconds
            number += users

    await asyncio.gather(*(user(number) for number in range(users)))
    return done / seconds


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile in milliseconds, NaN of nothing."""
    return float(np.percentile(values, share)) * 1e3 if len(values) else float("nan")


def figures(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return counts by status, goodput, and latencies of answered and refused requests."""
    good = [each.seconds for each in samples if each.status == 200]
    refused = [each.seconds for each in samples if each.status in (429, 503)]
    span = max((each.due for each in samples), default=1.0)
    return {
        "sent": len(samples),
        "by status": dict(Counter(each.status for each in samples)),
        "goodput /s": round(len(good) / span, 2),
        "p50 ms": round(percentile(good, 50), 1),
        "p99 ms": round(percentile(good, 99), 1),
        "refused p99 ms": round(percentile(refused, 99), 1),
    }


def photo(seed: int, size: tuple[int, int] = (500, 375)) -> bytes:
    """Return a smooth colourful JPEG, as large as a photograph of that size."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    file = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def metric(text: str, name: str) -> float:
    """Return the value of a metric with its labels, 0 if it is not there."""
    return next((float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name)), 0.0)
