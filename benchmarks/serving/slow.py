"""S8, slow clients: connections that send their headers a byte a second, and connections that never read their answers.

    python benchmarks/serving/slow.py --loris 1000 --readers 100

Passes if the p99 of normal requests is at most 1.5 times that without them. The normal load takes turns: without, with,
without, with.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch import NAME, make_folder, vitrail_server
from load import Address, Client, closed_loop, figures, json_requests, open_loop, photo, request


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Run it, print and return the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loris", type=int, default=1000)
    parser.add_argument("--readers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=12, help="length of each of four phases")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as place, vitrail_server(make_folder(Path(place))) as (address, _):
        found = asyncio.run(scenario(address, options))
    print(json.dumps(found, indent=1))
    return found


async def scenario(address: Address, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of normal requests without and with slow clients."""
    requests = json_requests(f"/v1/models/{NAME}/predict", [photo(i) for i in range(8)])
    client = Client(address)
    await closed_loop(client, requests, 8, 2)
    rate = 0.4 * await closed_loop(client, requests, 16, 4)
    phases: dict[str, list[Any]] = {"without": [], "with": []}
    for turn in range(2):
        phases["without"] += await open_loop(client, requests, rate, options.seconds, seed=turn)
        slow = [asyncio.ensure_future(_loris(address)) for _ in range(options.loris)]
        slow += [asyncio.ensure_future(_reader(address)) for _ in range(options.readers)]
        await asyncio.sleep(2)
        phases["with"] += await open_loop(client, requests, rate, options.seconds, seed=turn)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
    found = {name: figures(samples) for name, samples in phases.items()}
    ratio = found["with"]["p99 ms"] / found["without"]["p99 ms"]
    return {"slow clients": options.loris + options.readers, **found, "p99 ratio": round(ratio, 2)}


async def _loris(address: Address) -> None:
    """Send a header a byte a second, and begin again when the server closes the connection."""
    while True:
        try:
            _, writer = await asyncio.open_connection(*address)
            for byte in b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + b"a" * 100:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(1)
        except OSError:
            await asyncio.sleep(1)


async def _reader(address: Address) -> None:
    """Ask for many long answers and read none."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(*address, limit=1)
            reader._transport.pause_reading()  # pyright: ignore[reportAttributeAccessIssue]
            writer.write(request("GET", "/metrics") * 100)
            await asyncio.sleep(30)
        except OSError:
            await asyncio.sleep(1)


if __name__ == "__main__":
    main()
