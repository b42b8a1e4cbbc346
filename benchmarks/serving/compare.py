"""Throughput of `vitrail serve` against offline prediction, LitServe and a plain FastAPI handler, on one model.

    pip install --target litserve litserve                      # not a dependency of Vitrail
    python benchmarks/serving/compare.py --litserve litserve/

1. Served against offline: responses per second at saturation (closed loop) against images per second of
   `vitrail.predict` on the same files with the optimized model made beforehand; turns alternate. The client takes its
   share of the same cores.
2. Against peers: the highest rate of a Poisson load (open loop) at which no request fails and p99 is at most a bound,
   the same for all, for several bounds; servers take turns at each rate. Ours computes in `--precision`; the peers
   compute the plain model in fp32, or our optimized one in fp32.
"""

import argparse
import asyncio
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from launch import NAME, free_address, make_folder, process, vitrail_server
from load import Address, Client, closed_loop, figures, json_requests, open_loop, photo
from PIL import Image

import vitrail
from vitrail.fused.plan import PRECISIONS, Precision
from vitrail.inference.model_loading import find_model
from vitrail.inference.predict import predict

IMAGES = 16
PEERS = {"LitServe": ["litserve"], "FastAPI": ["fastapi"], "LitServe, optimized model": ["litserve", "--optimized"]}
"""Words of `peers.py` for each peer."""


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Run both parts, print and return their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litserve", type=Path, help="folder with LitServe, if it is not installed")
    parser.add_argument("--seconds", type=float, default=6, help="length of a turn (default: %(default)s)")
    parser.add_argument("--side", type=int, default=224, help="side of the model's images (default: %(default)s)")
    parser.add_argument(
        "--bounds", type=float, nargs="+", default=[200, 300, 500, 1000], help="bounds of p99 in ms (%(default)s)"
    )
    parser.add_argument("--start", type=float, default=4, help="first rate a second (default: %(default)s)")
    parser.add_argument("--growth", type=float, default=1.25, help="ratio of successive rates (default: %(default)s)")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="of our served and offline model (default: %(default)s)",
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="peers to run (default: all)")
    parser.add_argument("--part", choices=("offline", "peers", "both"), default="both")
    options = parser.parse_args(words)
    found: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "side": options.side,
        "precision": options.precision,
    }
    with tempfile.TemporaryDirectory() as place:
        folder = make_folder(Path(place), options.side)
        if options.part != "peers":
            found["offline"] = offline(folder, Path(place), options.seconds, options.precision)
        if options.part != "offline":
            found["peers"] = beside_peers(folder, options)
    print(json.dumps(found, indent=1))
    return found


def offline(folder: Path, place: Path, seconds: float, precision: Precision) -> dict[str, Any]:
    """Return images per second of `predict` and of the server, as medians of alternating turns."""
    images, model = [photo(i) for i in range(IMAGES)], vitrail.optimize(find_model(str(folder)), precision)
    predict(model, [Image.open(io.BytesIO(images[0]))] * 8, batch=8)  # warm-up
    files = []
    for i, data in enumerate(images * 4):
        files.append(place / f"{i}.jpg")
        files[-1].write_bytes(data)
    rates: dict[str, list[float]] = {"offline": [], "served": []}
    with vitrail_server(folder, "--precision", precision) as (address, _):
        requests = json_requests(f"/v1/models/{NAME}/predict", images)
        asyncio.run(closed_loop(Client(address), requests, 16, 2))
        for _ in range(3):
            began = time.perf_counter()
            predict(model, files, batch=8)
            rates["offline"].append(len(files) / (time.perf_counter() - began))
            rates["served"].append(asyncio.run(closed_loop(Client(address), requests, 24, seconds)))
            print({name: round(values[-1], 1) for name, values in rates.items()}, file=sys.stderr, flush=True)
    medians = {name: round(statistics.median(values), 2) for name, values in rates.items()}
    return {**medians, "turns": rates, "ratio": round(medians["served"] / medians["offline"], 3)}


def beside_peers(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the highest rate of each server within the bound."""
    peers = str(Path(__file__).with_name("peers.py"))
    env = {"PYTHONPATH": f"{options.litserve.resolve()}:{_path()}"} if options.litserve else {}
    with ExitStack() as stack:
        address, _ = stack.enter_context(vitrail_server(folder, "--precision", options.precision))
        servers = {"vitrail serve": (address, f"/v1/models/{NAME}/predict")}
        for name in options.peers:
            flags = PEERS[name]
            place = free_address()
            words = [sys.executable, peers, flags[0], str(folder), str(place.port), *flags[1:]]
            stack.enter_context(process(words, place, "/health", env if flags[0] == "litserve" else None))
            servers[name] = (place, "/predict")
        return asyncio.run(_climb(servers, options))


def _path() -> str:
    import os

    return os.environ.get("PYTHONPATH", "")


async def _climb(servers: dict[str, tuple[Address, str]], options: argparse.Namespace) -> dict[str, Any]:
    images = [photo(i) for i in range(IMAGES)]
    requests = {name: json_requests(path, images) for name, (_, path) in servers.items()}
    for name, (address, _) in servers.items():
        await closed_loop(Client(address), requests[name], 8, 2)  # warm-up
    rate, tries, last = options.start, dict.fromkeys(servers, 0), max(options.bounds)
    best = {bound: dict.fromkeys(servers, 0.0) for bound in sorted(options.bounds)}
    while any(count < 2 for count in tries.values()):
        for name, (address, _) in servers.items():
            if tries[name] >= 2:
                continue
            client = Client(address)
            samples = await open_loop(client, requests[name], rate, options.seconds)
            await client.close()
            found = figures(samples)
            print(f"{rate:.1f}/s", name, found, file=sys.stderr, flush=True)
            answered = found["by status"] == {200: len(samples)}
            for bound, rates in best.items():
                if answered and found["p99 ms"] <= bound:
                    rates[name] = rate
            tries[name] = 0 if answered and found["p99 ms"] <= last else tries[name] + 1  # twice in a row: the end
        rate *= options.growth
    return {f"p99 up to {bound:g} ms": _compared(rates) for bound, rates in best.items()}


def _compared(rates: dict[str, float]) -> dict[str, dict[str, float | None]]:
    """Return rate a second of each server, and ours over it; None if it had none within the bound."""
    ours = rates["vitrail serve"]
    return {
        name: {"rate /s": round(rate, 1), "ours / theirs": round(ours / rate, 2) if rate else None}
        for name, rate in rates.items()
    }


if __name__ == "__main__":
    main()
