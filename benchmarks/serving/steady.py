"""S1, steady load at 70 % of capacity; S2, overload at ten times capacity.

    python benchmarks/serving/steady.py --seconds 20

S1 passes if no request fails and every answer equals that of `vitrail.predict`; S2 if goodput is at least 90 % of the
maximum, refusals take at most 50 ms in the 99th percentile, memory grows by at most a quarter, and p99 is back within
5 s after the overload. Client and server share the cores: the model is slow and the images small, so that the client
can send ten times what the server computes; `client late ms` is how far behind its plan it was.

The phase after the overload begins with its last request, not with its last answer, so that the queue is still full. It
has the arrivals of the steady phase before, and so has a third one once all is quiet again: p99 of a few hundred
requests is mostly that of its arrivals, and what differs between the first and the third is the noise of the machine.
"""

import argparse
import asyncio
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from launch import NAME, make_folder, resident, vitrail_server
from load import (
    Address,
    Client,
    Sample,
    closed_loop,
    figures,
    json_requests,
    metric,
    open_loop,
    percentile,
    photo,
    request,
)
from PIL import Image

from vitrail.inference.predict import predict

ROUTE = f"/v1/models/{NAME}/predict"
IMAGES, RECOVERY = 16, 5.0


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Run both, print and return their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="length of each phase (default: %(default)s)")
    parser.add_argument("--side", type=int, default=224, help="side of the model's images (default: %(default)s)")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as place:
        folder = make_folder(Path(place), options.side)
        images = [photo(i, (160, 120)) for i in range(IMAGES)]
        expected = [each.to_dict() for each in predict(str(folder), [Image.open(io.BytesIO(each)) for each in images])]
        with vitrail_server(folder) as (address, running):
            found = asyncio.run(measure(address, running.pid, images, expected, options.seconds))
    print(json.dumps(found, indent=1))
    return found


async def measure(
    address: Address, pid: int, images: Sequence[bytes], expected: Sequence[Any], seconds: float
) -> dict[str, Any]:
    """Return the figures of all phases."""
    client, requests = Client(address), json_requests(ROUTE, images)
    await closed_loop(client, requests, 16, min(seconds, 3))  # warm-up
    capacity = await closed_loop(client, requests, 24, seconds / 2)
    rate, span = 0.7 * capacity, seconds + RECOVERY
    steady = await open_loop(client, requests, rate, span)
    before, gauges = resident(pid), list[float]()
    overloading = asyncio.ensure_future(open_loop(client, requests, 10 * capacity, seconds, seed=1))
    await asyncio.sleep(seconds)
    watch = asyncio.ensure_future(_pending(address, RECOVERY, gauges))
    after = await open_loop(client, requests, rate, span)
    overload, _ = await overloading, await watch
    again = await open_loop(client, requests, rate, span)
    over, usual = figures(overload), figures(steady)
    status, _, text = await client.exchange(request("GET", "/metrics"))
    assert status == 200 and b"vitrail_batch_size" in text
    return {
        "capacity /s": round(capacity, 1),
        "S1 steady": usual,
        "S1 compute p50 ms": round(percentile(compute_seconds(steady), 50), 1),
        "S1 p99 ms of an ideal queue": round(percentile(ideal(steady), 99), 1),
        "S1 failures": sum(each.status != 200 for each in steady),
        "S1 wrong answers": sum(is_wrong(each, i, expected) for i, each in enumerate(steady)),
        "S2 overload": over,
        "S2 goodput of capacity": round(over["goodput /s"] / capacity, 3),
        "S2 refused p99 ms since sent": round(percentile([one.sent for one in overload if one.status == 429], 99), 1),
        "S2 client late ms": round(percentile([each.seconds - each.sent for each in overload], 99), 1),
        "S2 other statuses": {key: n for key, n in over["by status"].items() if key not in (200, 429)},
        "S2 wrong answers": sum(is_wrong(each, i, expected) for i, each in enumerate(overload)),
        "S2 memory growth": round(resident(pid) / before, 3),
        "S2 queue each second after": gauges,
        "S2 p99 ms from 5 s on, before, after, later": [_late_p99(each) for each in (steady, after, again)],
        "S2 seconds until latencies are usual": recovery(after, steady),
    }


async def _pending(address: Address, seconds: float, found: list[float]) -> None:
    """Append the length of the queue once a second."""
    client = Client(address)
    for _ in range(int(seconds)):
        _, _, text = await client.exchange(request("GET", "/metrics"))
        found.append(metric(text.decode(), "vitrail_pending_inputs"))
        await asyncio.sleep(1)
    await client.close()


def _late_p99(samples: Sequence[Sample]) -> float:
    return figures([each for each in samples if each.due > RECOVERY])["p99 ms"]


def recovery(after: Sequence[Sample], usual: Sequence[Sample]) -> float:
    """Return the time after which the median latency of no half second is above the usual p90.

    Example:
        >>> slow = [Sample(t / 10, 1.0 if t < 13 else 0.1, 200, 0.1, {}, b"") for t in range(50)]
        >>> recovery(slow, slow[20:])
        1.5
    """
    bound = float(np.percentile([each.seconds for each in usual if each.status == 200], 90))
    found = 0.0
    for step in range(int(2 * after[-1].due) + 1):
        those = [each.seconds for each in after if step <= 2 * each.due < step + 1 and each.status == 200]
        if those and float(np.median(those)) > bound:
            found = (step + 1) / 2
    return found


def compute_seconds(samples: Sequence[Sample]) -> list[float]:
    """Return the compute times in the responses of the server."""
    return [json.loads(each.body)["timing"]["compute_ms"] / 1e3 for each in samples if each.status == 200]


def ideal(samples: Sequence[Sample]) -> list[float]:
    """Return the latencies of a server that costs nothing but the model, for the same arrivals.

    Whatever waits is computed at once, in a batch of at most 8, in the seconds that batches of that size took: the line
    through the compute times of the answers. No order of jobs of equal size has a smaller p99, and at 70 % load it is
    far above twice the time of one batch if a batch of two takes twice as long as one input.

    Example:
        >>> body = b'{"timing": {"compute_ms": 100, "batch": 1}}'
        >>> [round(each, 2) for each in ideal([Sample(t, 0.1, 200, 0.1, {}, body) for t in (0.0, 0.05, 1.0)])]
        [0.1, 0.15, 0.1]
    """
    timings = [json.loads(each.body)["timing"] for each in samples if each.status == 200]
    sizes, seconds = (np.array([one[key] for one in timings], float) for key in ("batch", "compute_ms"))
    each, fixed = np.polyfit(sizes, seconds / 1e3, 1) if len(set(sizes)) > 1 else (seconds.mean() / 1e3, 0.0)
    due, found, now, done = sorted(one.due for one in samples), list[float](), 0.0, 0
    while done < len(due):
        now = max(now, due[done])
        size = min(sum(one <= now for one in due[done : done + 8]), 8)
        now += fixed + each * size
        found += [now - one for one in due[done : done + size]]
        done += size
    return found


def is_wrong(sample: Sample, number: int, expected: Sequence[Any]) -> bool:
    """Return whether an answer differs from the offline prediction of its image."""
    if sample.status != 200:
        return False
    return not matches(json.loads(sample.body)["result"], expected[number % len(expected)])


def matches(result: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Return whether two predictions are equal."""
    return result["label"] == wanted["label"] and abs(result["probability"] - wanted["probability"]) <= 1e-4


if __name__ == "__main__":
    main()
