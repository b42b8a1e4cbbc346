"""S5, SIGTERM under load, many times: no accepted request is lost.

    python benchmarks/serving/drain.py --count 100

Each time a forked process serves, clients send without pause, and after a random time the process gets SIGTERM. The
process reports how many predictions it accepted; the answer to every one must have reached its client as a whole.
Passes if none is lost, readiness is 503 within 100 ms, and each process ends by itself with code 0.
"""

import argparse
import asyncio
import json
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from launch import NAME, make_model
from load import Address, Client, percentile, photo, request

from vitrail.serving.access import access_rules
from vitrail.serving.limits import Limits
from vitrail.serving.served_model import serve_model
from vitrail.serving.server import listen, make_server, run_server
from vitrail.serving.service import Service

RAW = request("POST", f"/v1/models/{NAME}/predict", photo(0, (200, 150)), "image/jpeg")
USERS = 12


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Run it, print and return the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="number of the first one, the seed of its time")
    options = parser.parse_args(words)
    torch.set_num_threads(1)  # a process that has computed with several threads must not fork
    model = serve_model(NAME, make_model(96, depth=2), Limits(), batch=4, optimize=False)
    rounds = [one(model, options.first + number) for number in range(options.count)]
    total = {name: sum(each[name] for each in rounds) for name in ("accepted", "answered", "lost", "refused", "closed")}
    late = [each["503 after s"] for each in rounds]
    found = {
        "drains": len(rounds),
        **total,
        "exit codes": sorted({each["code"] for each in rounds}),
        "readiness 503 after ms, p50 and most": [round(percentile(late, 50), 1), round(max(late) * 1e3, 1)],
        "exit after s, most": round(max(each["exit s"] for each in rounds), 2),
    }
    print(json.dumps(found, indent=1))
    return found


def one(model: Any, number: int) -> dict[str, Any]:
    """Serve, load, end; return the counts."""
    listening = listen("127.0.0.1", 0)
    address = Address(*listening.getsockname()[:2])
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _serve(model, listening, writing)
    os.close(writing)
    listening.close()
    counts = asyncio.run(_load(address, child, np.random.default_rng(number).uniform(0.05, 0.6)))
    ended = time.monotonic()
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        accepted = json.loads(pipe.read() or "-1")
    seconds = time.monotonic() - ended + counts.pop("waited")
    code = os.waitstatus_to_exitcode(status)
    return {**counts, "accepted": accepted, "lost": accepted - counts["answered"], "code": code, "exit s": seconds}


def _serve(model: Any, listening: Any, writing: int) -> None:
    """Serve in the forked process and end it; the number of accepted predictions goes to the pipe."""
    code = 1
    try:
        limits = Limits()
        service = Service([model], limits)
        lost = run_server(make_server(service, access_rules("127.0.0.1", None, limits, set())), listening)
        families = {family.name: family for family in service.metrics.registry.collect()}
        accepted = sum(
            sample.value
            for name in ("vitrail_requests_success", "vitrail_requests_failure")
            for sample in families[name].samples
            if sample.name.endswith("_total") and sample.labels.get("reason") not in ("queue_full", "client_gone")
        )
        os.write(writing, json.dumps(int(accepted)).encode())
        code = 1 if lost else 0
    finally:
        os._exit(code)


async def _load(address: Address, child: int, wait: float) -> dict[str, Any]:
    """Send until the server is gone; return counts of statuses, and times."""
    client, counts, over = Client(address), {"answered": 0, "refused": 0, "closed": 0}, asyncio.Event()
    while (await client.exchange(request("GET", "/readyz")))[0] != 200:
        await asyncio.sleep(0.02)

    async def user() -> None:
        mine = Client(address)
        while not over.is_set():
            status, _, _ = await mine.exchange(RAW)
            counts["answered" if status == 200 else "closed" if status == 0 else "refused"] += 1
            if status == 0:
                break
            await asyncio.sleep(0.001 if status == 200 else 0.01)
        await mine.close()

    users = [asyncio.ensure_future(user()) for _ in range(USERS)]
    await asyncio.sleep(wait)
    os.kill(child, signal.SIGTERM)
    began, late = time.monotonic(), float("inf")
    while time.monotonic() - began < 40:
        status, _, _ = await Client(address).exchange(request("GET", "/readyz"))
        if status != 200:
            late = min(late, time.monotonic() - began)
        if status == 0:
            break
        await asyncio.sleep(0.01)
    over.set()
    await asyncio.gather(*users)
    await client.close()
    return {**counts, "503 after s": late, "waited": time.monotonic() - began}


if __name__ == "__main__":
    main()
