"""S7, fuzzed requests: no answer is a 500, the server stays healthy.

    python benchmarks/serving/fuzz.py --count 10000

A part of the requests are valid; others have drawn methods, paths, headers, types and bodies (files with bytes flipped,
cut, repeated, and structures of JSON and forms recombined); the rest are bytes that are hardly HTTP. All are a function
of the seed.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from launch import NAME, LocalServer
from load import Client, parse_head, photo, request

from vitrail.serving.limits import Limits

Rng = np.random.Generator
USERS = 64
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE")
PATHS = (
    "/", "/docs", "/openapi.json", "/livez", "/readyz", "/metrics", "/static/docs.css", "/static/%2e%2e%2fapp.py",
    "/v1/models", "/v1/models/", f"/v1/models/{NAME}", f"/v1/models/{NAME}/predict", f"/v1/models/{NAME}/predict?top=2",
    f"/v1/models/{NAME}/predict?top=%00&draw=maybe", "/v1/models/%ff/predict", "/v1/models/../../etc/passwd/predict",
    "/v1/models/x/predict", f"/v1/models/{NAME}/predict/", "//", "/favicon.ico",
)  # fmt: skip
KINDS = (
    "application/json",
    "multipart/form-data; boundary=b",
    "multipart/form-data",
    "image/jpeg",
    "image/png",
    "text/plain",
    "application/octet-stream",
    "application/json; charset=utf-16",
    "",
    "image/svg+xml",
    "multipart/form-data; boundary=",
)
VALUES = (
    None,
    True,
    -1,
    0,
    3,
    2**63,
    1e400,
    1e-400,
    "",
    "a",
    "\ud800",
    "data:,",
    "data:image/png;base64,AAAA",
    [],
    {},
    [[]],
)
STRANGE = (
    b"GET / HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\r\n\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nzz\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    b"GET /\x00 HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
    b"A" * 70_000,
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
)


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Run it, print and return the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    limits = Limits(timeout=3, header_timeout=1, body=60_000)
    with LocalServer(limits, batch=4) as server:
        server.blocked.free.set()
        found = asyncio.run(scenario(server, options.count, options.seed))
    print(json.dumps(found, indent=1))
    return found


async def scenario(server: LocalServer, count: int, seed: int) -> dict[str, Any]:
    """Send all requests, some at a time, and return counts by status."""
    counts, began = Counter[int](), time.monotonic()
    bad: list[str] = []

    async def user(first: int) -> None:
        for number in range(first, count, USERS):
            raw = fuzzed(np.random.default_rng((seed, number)))
            status = await exchange(server.address, raw)
            counts[status] += 1
            if status == 500:
                bad.append(f"{number}: {raw[:200]!r}")

    await asyncio.gather(*(user(first) for first in range(USERS)))
    await asyncio.sleep(server.service.limits.timeout)  # bodies that never end are given up
    client = Client(server.address)
    good = request("POST", f"/v1/models/{NAME}/predict", photo(0, (48, 36)), "image/jpeg")
    health = [(await client.exchange(request("GET", path)))[0] for path in ("/livez", "/readyz")]
    last = (await client.exchange(good))[0]
    await client.close()
    return {
        "requests": count,
        "by status": dict(sorted(counts.items())),
        "500": counts[500],
        "first of them": bad[:3],
        "health": health,
        "a good request": last,
        "held bytes": server.service.budget.used,
        "seconds": round(time.monotonic() - began, 1),
    }


async def exchange(address: Any, raw: bytes) -> int:
    """Send bytes, close the sending side, and return the status of the first answer; 0 for none."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(raw)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        return parse_head(head)[0]
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, ValueError, IndexError):
        return 0
    finally:
        writer.transport.abort()


def fuzzed(rng: Rng) -> bytes:
    """Return one request, a function of the generator."""
    choice = rng.random()
    if choice < 0.3:
        return mutated(rng, pick(rng, STRANGE) if choice < 0.1 else sensible(rng), 1 + int(rng.integers(8)))
    if choice < 0.5:
        return request("POST", f"/v1/models/{NAME}/predict", photo(int(rng.integers(4)), (40, 30)), "image/jpeg")
    return sensible(rng)


def sensible(rng: Rng) -> bytes:
    """Return a request whose HTTP is correct and whose parts are drawn."""
    kind, headers = pick(rng, KINDS), {}
    if rng.random() < 0.2:
        headers = {"X-Request-ID": "a" * rng.integers(100), "Content-Encoding": pick(rng, ("gzip", "br", "identity"))}
    if rng.random() < 0.1:
        headers |= {"Origin": "null", "Cookie": "vitrail_session=" + "x" * rng.integers(9000)}
    method = pick(rng, METHODS) if rng.random() < 0.5 else "POST"
    path = pick(rng, PATHS) if rng.random() < 0.5 else f"/v1/models/{NAME}/predict"
    return request(method, path, content(rng, kind), kind, **headers)


def content(rng: Rng, kind: str) -> bytes:
    """Return a body for a content type."""
    image = photo(int(rng.integers(4)), (40, 30))
    if rng.random() < 0.3:
        image = mutated(rng, image, 1 + int(rng.integers(4)))
    if kind.startswith("application/json"):
        body = json.dumps(structure(rng, 3)).encode()
        return mutated(rng, body, 1) if rng.random() < 0.3 else body
    if kind.startswith("multipart"):
        body = b""
        for _ in range(rng.integers(0, 30 if rng.random() < 0.1 else 4)):
            name = pick(rng, ("input", "file", "options", "draw", "images", "x", "", "\N{SNOWMAN}"))
            head = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="../../x<script>"\r\n\r\n'
            body += head.encode() + (image if rng.random() < 0.5 else json.dumps(pick(rng, VALUES)).encode()) + b"\r\n"
        body += b"--b--\r\n"
        return mutated(rng, body, 1) if rng.random() < 0.3 else body
    return image if rng.random() < 0.9 else b"\0" * int(rng.integers(59_990, 60_010))


def structure(rng: Rng, depth: int) -> Any:
    """Return values in the shape of a request, or not."""
    if depth == 3 and rng.random() < 0.8:
        names = ("input", "inputs", "options", "draw", "images", "x")
        return {name: structure(rng, 2) for name in names if rng.random() < 0.4}
    if depth and rng.random() < 0.4:
        return {pick(rng, ("top", "labels", "batch", "__class__")): structure(rng, depth - 1)}
    if depth and rng.random() < 0.3:
        return [structure(rng, depth - 1) for _ in range(rng.integers(20))]
    return pick(rng, VALUES)


def mutated(rng: Rng, data: bytes, times: int) -> bytes:
    """Return bytes with some of them flipped, removed, inserted or repeated."""
    for _ in range(times):
        at, span, choice = int(rng.integers(len(data) + 1)), int(rng.integers(1, 20)), rng.integers(4)
        insert = (rng.bytes(span), b"", b"\r\n", data[at : at + span] * 3)[choice]
        data = data[:at] + insert + data[at + (span if choice < 2 else 0) :]
    return data


def pick(rng: Rng, values: Sequence[Any]) -> Any:
    """Return one of some values."""
    return values[int(rng.integers(len(values)))]


if __name__ == "__main__":
    main()
