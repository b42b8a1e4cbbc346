"""S4, clients that close their connection while their request waits, or while it is computed.

    python benchmarks/serving/cancel.py --queued 1000 --running 200

Passes if at least 99 % of the waiting ones are never computed, the gauges return to 0, and the others are answered.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from typing import Any

from launch import NAME, LocalServer
from load import Client, metric, photo, request

from vitrail.serving.limits import Limits

RAW = request("POST", f"/v1/models/{NAME}/predict", photo(0, (48, 36)), "image/jpeg")
NEIGHBOURS = 8


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Run it, print and return the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queued", type=int, default=1000)
    parser.add_argument("--running", type=int, default=200)
    options = parser.parse_args(words)
    batch = 8
    waves = -(-options.queued // batch) + 8
    with LocalServer(Limits(queue=waves, wait=600, connections=2 * options.queued + 64), batch=batch) as server:
        found = asyncio.run(scenario(server, options.queued, options.running, batch))
    print(json.dumps(found, indent=1))
    return found


async def scenario(server: LocalServer, queued: int, running: int, batch: int) -> dict[str, Any]:
    """Return the figures."""
    blocked, client = server.blocked, Client(server.address)
    first = asyncio.ensure_future(client.exchange(RAW))
    await until(blocked.entered.is_set)
    writers = [await _send(server) for _ in range(queued)]
    neighbours = [asyncio.ensure_future(client.exchange(RAW)) for _ in range(NEIGHBOURS)]
    await until(lambda: _pending(server) == queued + NEIGHBOURS)
    for writer in writers:
        writer.transport.abort()
    await until(lambda: _pending(server) == NEIGHBOURS)
    blocked.free.set()
    answers = [await first, *await asyncio.gather(*neighbours)]
    computed = blocked.computed - 1 - NEIGHBOURS
    lost = await _running(server, running, batch)
    await until(lambda: server.service.idle)
    status, _, text = await client.exchange(request("GET", "/metrics"))
    gauges = [metric(text.decode(), f"vitrail_{name}_inputs") for name in ("pending", "running")]
    await client.close()
    return {
        "dropped while queued": queued,
        "of them computed": computed,
        "neighbours answered": [status for status, _, _ in answers].count(200),
        "neighbours": NEIGHBOURS + 1,
        **lost,
        "gauges": gauges,
        "held bytes": server.service.budget.used,
        "last status": status,
    }


async def _running(server: LocalServer, count: int, batch: int) -> dict[str, int]:
    """Drop whole batches while they are computed, each followed by one client that stays."""
    blocked, client, answered, waves = server.blocked, Client(server.address), 0, -(-count // batch)
    for _ in range(waves):
        blocked.free.clear()
        blocked.entered.clear()
        writers = [await _send(server) for _ in range(batch)]
        await until(blocked.entered.is_set)
        stays = asyncio.ensure_future(client.exchange(RAW))
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)
        blocked.free.set()
        answered += (await stays)[0] == 200
    await client.close()
    return {"dropped while running": waves * batch, "answered after them": answered, "waves": waves}


async def _send(server: LocalServer) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection(*server.address)
    writer.write(RAW)
    await writer.drain()
    return writer


def _pending(server: LocalServer) -> int:
    return server.service._batchers[NAME].pending


async def until(condition: Any, seconds: float = 60) -> None:
    """Wait for a condition."""
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise SystemExit("a condition did not come true in time")


if __name__ == "__main__":
    main()
