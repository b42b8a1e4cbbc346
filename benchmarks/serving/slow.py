"""S8, slow clients: headers a byte a second, bodies a kilobyte a second, and responses that are never read.

    python benchmarks/serving/slow.py --loris 1000 --readers 100 --senders 20

Passes if the p99 of normal requests is at most 1.5 times that without them. The slow clients are a process of their
own, so that their work does not delay the client that measures; a reader asks for many copies of a file that costs the
server nothing to make. The normal load takes turns (without, with) with equal arrivals, at a share of the capacity at
which the cores have time for both clients. Memory and connections of the server must stay bounded.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import random
from typing import Any

from launch import NAME, make_folder, resident, vitrail_server
from load import Address, Client, closed_loop, figures, json_requests, metric, open_loop, photo, request

LARGE = request("GET", "/static/page.css")
PREDICT = f"POST /v1/models/{NAME}/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n"


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Run it, print and return the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loris", type=int, default=1000)
    parser.add_argument("--readers", type=int, default=100)
    parser.add_argument("--senders", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10, help="length of each phase (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=2, help="turns of both phases (default: %(default)s)")
    parser.add_argument("--share", type=float, default=0.25, help="load as a share of capacity (default: %(default)s)")
    parser.add_argument("--attack", type=int, help=argparse.SUPPRESS)  # the process of the slow clients: a port
    options = parser.parse_args(words)
    if options.attack is not None:
        asyncio.run(attack(Address("127.0.0.1", options.attack), options))
        return {}
    with tempfile.TemporaryDirectory() as place, vitrail_server(make_folder(Path(place))) as (address, running):
        found = asyncio.run(scenario(address, running.pid, options))
    print(json.dumps(found, indent=1))
    return found


async def scenario(address: Address, pid: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of normal requests without and with slow clients."""
    requests = json_requests(f"/v1/models/{NAME}/predict", [photo(i) for i in range(8)])
    client = Client(address)
    await closed_loop(client, requests, 8, min(2, options.seconds))
    capacity = await closed_loop(client, requests, 16, min(4, options.seconds))
    rate, before = options.share * capacity, resident(pid)
    phases: dict[str, list[Any]] = {"without": [], "with": []}
    rows, most, open_ = [], 0.0, 0.0
    for turn in range(options.turns):
        without = await open_loop(client, requests, rate, options.seconds, seed=turn)
        with slow_clients(address, options):
            slowed = await open_loop(client, requests, rate, options.seconds, seed=turn)
            _, _, text = await client.exchange(request("GET", "/metrics"))
            open_ = max(open_, metric(text.decode(), "vitrail_connections"))
            most = max(most, resident(pid))
        rows.append([figures(each)["p99 ms"] for each in (without, slowed)])
        phases["without"] += without
        phases["with"] += slowed
        await asyncio.sleep(1)
    found = {name: figures(samples) for name, samples in phases.items()}
    ratio = found["with"]["p99 ms"] / found["without"]["p99 ms"]
    return {
        "slow clients": options.loris + options.readers + options.senders,
        "rate /s": round(rate, 1),
        "capacity /s": round(capacity, 1),
        **found,
        "p99 ms by turn, without and with": rows,
        "p99 ratio": round(ratio, 2),
        "p50 ratio": round(found["with"]["p50 ms"] / found["without"]["p50 ms"], 2),
        "open connections, most": open_,
        "memory growth MB": round(most - before, 1),
    }


@contextmanager
def slow_clients(address: Address, options: argparse.Namespace) -> Iterator[None]:
    """Run the slow clients in a process of their own; all are connected when the block begins."""
    counts = [f"--{name}={getattr(options, name)}" for name in ("loris", "readers", "senders")]
    words = [sys.executable, __file__, f"--attack={address.port}", *counts]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and "connected" in running.stdout.readline()
        try:
            yield
        finally:
            running.kill()


async def attack(address: Address, options: argparse.Namespace) -> None:
    """Run all slow clients until the process is ended."""
    slow = [loris(address) for _ in range(options.loris)] + [reader(address) for _ in range(options.readers)]
    tasks = [asyncio.ensure_future(each) for each in [*slow, *(sender(address) for _ in range(options.senders))]]
    await asyncio.sleep(2)
    print("connected", flush=True)
    await asyncio.gather(*tasks)


async def loris(address: Address) -> None:
    """Send a header a byte a second, and begin again when the server closes the connection."""
    await _drip(address, b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ", b"a", 100)


async def sender(address: Address) -> None:
    """Send a body of a megabyte, a kilobyte a second."""
    await _drip(address, f"{PREDICT}Content-Length: 1000000\r\n\r\n".encode(), b"a" * 1000, 1000)


async def _drip(address: Address, head: bytes, piece: bytes, count: int) -> None:
    await asyncio.sleep(random())  # real clients do not connect all at once
    while True:
        writer = None
        try:
            _, writer = await asyncio.open_connection(*address)
            writer.write(head)
            for _ in range(count):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(1)
        except OSError:
            await asyncio.sleep(0.5 + random())
        finally:
            if writer is not None:
                writer.transport.abort()


async def reader(address: Address, count: int = 400) -> None:
    """Ask for a file many times and read nothing."""
    while True:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.setblocking(False)
        writer = None
        try:
            await asyncio.get_running_loop().sock_connect(made, tuple(address))
            _, writer = await asyncio.open_connection(sock=made, limit=1)
            writer.transport.pause_reading()  # pyright: ignore[reportAttributeAccessIssue]
            for _ in range(count):
                writer.write(LARGE)
                await writer.drain()
            await asyncio.sleep(60)
        except OSError:
            await asyncio.sleep(1)
        finally:
            if writer is None:
                made.close()
            else:
                writer.transport.abort()


if __name__ == "__main__":
    main()
