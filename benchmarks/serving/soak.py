"""S3, a soak of valid requests; S12, clients that mix valid, malformed, huge and cancelled requests.

    python benchmarks/serving/soak.py --seconds 3600            # S3
    python benchmarks/serving/soak.py --seconds 3600 --mixed    # S12

Memory, open files and threads of the server are sampled between periods, when nothing is under way. Passes if memory
grows by at most 1 MB an hour and 50 MB in all after the warm-up, files and threads do not grow, no answer is a 500, and
every prediction equals that of `vitrail.predict`. In a short run the slope of memory is noise: its error is stated.
"""

import argparse
import asyncio
import io
import json
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
from fuzz import exchange, fuzzed
from launch import MOST, NAME, make_folder, resident, vitrail_server
from load import Address, Client, json_requests, photo, request
from PIL import Image
from steady import matches

from vitrail.inference.predict import predict

ROUTE = f"/v1/models/{NAME}/predict"
IMAGES, USERS = 16, 8
SHARES = {"valid": 0.5, "malformed": 0.25, "huge": 0.1, "cancelled": 0.15}
"""Shares of the requests of S12."""


class Usage(NamedTuple):
    """Resources of a process at one time."""

    seconds: float
    memory: float
    files: int
    threads: int


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Run it, print and return the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--period", type=float, default=10, help="seconds between samples (default: %(default)s)")
    parser.add_argument("--mixed", action="store_true", help="S12 instead of S3")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as place:
        folder = make_folder(Path(place))
        images = [photo(i, (160, 120)) for i in range(IMAGES)]
        expected = [each.to_dict() for each in predict(str(folder), [Image.open(io.BytesIO(each)) for each in images])]
        with vitrail_server(folder, most=options.seconds + MOST) as (address, running):
            soak = Soak(address, running.pid, images, expected)
            found = asyncio.run(soak.scenario(options.seconds, options.period, options.mixed))
    print(json.dumps(found, indent=1))
    return found


class Soak:
    """Clients of one server, and counts of its responses.

    Args:
        address: the server.
        pid: its process.
        images: images that are sent.
        expected: their offline predictions.
    """

    def __init__(self, address: Address, pid: int, images: Sequence[bytes], expected: Sequence[Any]):
        self.address, self.pid, self.expected = address, pid, expected
        self.requests = json_requests(ROUTE, images)
        self.counts, self.wrong, self.number = Counter[str](), 0, 0

    async def scenario(self, seconds: float, period: float, mixed: bool) -> dict[str, Any]:
        """Send requests in periods, sample between them, and return the figures."""
        began, used = monotonic(), list[Usage]()
        while monotonic() - began < seconds:
            until, client = monotonic() + min(period, seconds), Client(self.address)
            await asyncio.gather(*(self._user(client, user, until, mixed) for user in range(USERS)))
            await client.close()
            await asyncio.sleep(0.3)  # closed connections are gone
            used.append(_usage(self.pid, monotonic() - began))
        client = Client(self.address)
        health = [(await client.exchange(request("GET", path)))[0] for path in ("/livez", "/readyz")]
        await client.close()
        return {"requests": self.number, "by outcome": dict(sorted(self.counts.items())), "wrong answers": self.wrong,
                "500": self.counts["500"], "health": health, **_growth(used)}  # fmt: skip

    async def _user(self, client: Client, user: int, until: float, mixed: bool) -> None:
        while monotonic() < until:
            self.number += 1
            rng = np.random.default_rng((user, self.number))
            kind = rng.choice(list(SHARES), p=list(SHARES.values())) if mixed else "valid"
            status = await getattr(self, f"_{kind}")(client, rng)
            self.counts[str(status)] += 1

    async def _valid(self, client: Client, rng: Any) -> int | str:
        number = int(rng.integers(len(self.requests)))
        status, _, body = await client.exchange(self.requests[number])
        if status == 200 and not matches(json.loads(body)["result"], self.expected[number]):
            self.wrong += 1
        return status

    async def _malformed(self, client: Client, rng: Any) -> int | str:
        try:
            return await asyncio.wait_for(exchange(self.address, fuzzed(rng)), 2)
        except TimeoutError:  # the server waits for the rest of a body
            return "closed by the client"

    async def _huge(self, client: Client, rng: Any) -> int | str:
        """A body above the limit, one that only claims to be, or an image of many pixels."""
        size = int(rng.integers(1, 3)) * 12_000_000
        if rng.random() < 0.5:
            claim = request("POST", ROUTE, Content_Type="image/png", Content_Length=str(10**9))
            return await exchange(self.address, claim)
        body = photo(0, (4000, 3000)) if rng.random() < 0.1 else bytes(size)
        return await exchange(self.address, request("POST", ROUTE, body, "image/png"))

    async def _cancelled(self, client: Client, rng: Any) -> int | str:
        _, writer = await asyncio.open_connection(*self.address)
        raw = self.requests[int(rng.integers(len(self.requests)))]
        writer.write(raw[: int(len(raw) * min(1.0, 1.5 * rng.random()))])
        await asyncio.sleep(0.05 * rng.random())
        writer.transport.abort()
        return "cancelled"


def _usage(pid: int, seconds: float) -> Usage:
    return Usage(seconds, resident(pid), len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task")))


def _growth(used: Sequence[Usage]) -> dict[str, Any]:
    """Return the growth after the first quarter, and the slope of memory with its standard error."""
    kept = used[len(used) // 4 :]
    hours, memory = (np.array([each[i] for each in kept]) for i in (0, 1))
    found: dict[str, Any] = {"samples": len(kept)}
    if len(kept) > 2:
        (slope, _), covariance = np.polyfit(hours / 3600, memory, 1, cov="unscaled")
        rest = memory - np.polyval(np.polyfit(hours / 3600, memory, 1), hours / 3600)
        error = np.sqrt(covariance[0, 0] * (rest**2).sum() / (len(kept) - 2))
        found |= {"memory MB an hour": round(float(slope), 2), "standard error": round(float(error), 2)}
    growth = {
        name: round(getattr(kept[-1], name) - getattr(kept[0], name), 1) for name in ("memory", "files", "threads")
    }
    return {**found, "memory MB": round(kept[-1].memory, 1), "growth after warm-up": growth}


if __name__ == "__main__":
    main()
