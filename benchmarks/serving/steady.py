"""S1, steady load at 70 % of capacity; S2, overload at ten times capacity.

    python benchmarks/serving/steady.py --seconds 20

S1 passes if no request fails and every answer equals that of `vitrail.predict`; S2 if goodput is at least 90 % of the
maximum, refusals take at most 50 ms in the 99th percentile, memory grows by at most a quarter, and p99 is back within
5 s after the overload. Client and server share the cores: the model is slow and the images small, so that the client
can send ten times what the server computes; `client late ms` is how far behind its plan it was.
"""

import argparse
import asyncio
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch import NAME, make_folder, resident, vitrail_server
from load import Address, Client, Sample, closed_loop, figures, json_requests, open_loop, percentile, photo, request
from PIL import Image

from vitrail.inference.predict import predict

ROUTE = f"/v1/models/{NAME}/predict"
IMAGES = 16


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
    steady = await open_loop(client, requests, 0.7 * capacity, seconds)
    before = resident(pid)
    overload = await open_loop(client, requests, 10 * capacity, seconds, seed=1)
    after = await open_loop(client, requests, 0.7 * capacity, 10, seed=2)
    over, usual, late = figures(overload), figures(steady), [each for each in after if each.due > 5]
    status, _, text = await client.exchange(request("GET", "/metrics"))
    assert status == 200 and b"vitrail_batch_size" in text
    return {
        "capacity /s": round(capacity, 1),
        "S1 steady": usual,
        "S1 compute p50 ms": round(percentile(compute_seconds(steady), 50), 1),
        "S1 failures": sum(each.status != 200 for each in steady),
        "S1 wrong answers": sum(is_wrong(each, i, expected) for i, each in enumerate(steady)),
        "S2 overload": over,
        "S2 goodput of capacity": round(over["goodput /s"] / capacity, 3),
        "S2 client late ms": round(percentile([each.seconds - each.sent for each in overload], 99), 1),
        "S2 other statuses": {key: n for key, n in over["by status"].items() if key not in (200, 429)},
        "S2 wrong answers": sum(is_wrong(each, i, expected) for i, each in enumerate(overload)),
        "S2 memory growth": round(resident(pid) / before, 3),
        "S2 p99 ms from 5 s after": figures(late)["p99 ms"],
    }


def compute_seconds(samples: Sequence[Sample]) -> list[float]:
    """Return the compute times that the server states in its answers."""
    return [json.loads(each.body)["timing"]["compute_ms"] / 1e3 for each in samples if each.status == 200]


def is_wrong(sample: Sample, number: int, expected: Sequence[Any]) -> bool:
    """Return whether an answer differs from the offline prediction of its image."""
    if sample.status != 200:
        return False
    result, wanted = json.loads(sample.body)["result"], expected[number % len(expected)]
    return result["label"] != wanted["label"] or abs(result["probability"] - wanted["probability"]) > 1e-4


if __name__ == "__main__":
    main()
