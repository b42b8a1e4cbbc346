"""C3 and I3 over HTTP: decompression bombs, truncated files, wrong formats, huge sizes, polyglots, odd pixels.

    python benchmarks/serving/hostile.py

Each file of `hostile_images.py` is sent as a body of a wrong type, in a form under a file name of another format, and
as base64. Passes if each is read or refused (422) as stated, in all three ways alike; equal images have equal
predictions; nothing takes a second or 256 MB; no text of a file comes back; and the server is healthy afterwards.
"""

import argparse
import asyncio
import base64
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from hostile_images import Case, corpus
from launch import NAME, make_folder, resident, vitrail_server
from load import Address, Client, request

ROUTE = f"/v1/models/{NAME}/predict"
FILE_NAMES = ("x.exe", "../../x.png", "x.svg", "x.jpg\\0.php", "<script>.gif")


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Run it, print and return the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(words)
    with tempfile.TemporaryDirectory() as place, vitrail_server(make_folder(Path(place))) as (address, running):
        found = asyncio.run(scenario(address, running.pid, corpus()))
    print(json.dumps(found, indent=1))
    return found


async def scenario(address: Address, pid: int, cases: Sequence[Case], ways: int = 3) -> dict[str, Any]:
    """Send all files, each in some ways, and return the figures."""
    client, results, wrong = Client(address), dict[str, Any](), list[str]()
    before, slowest, largest = resident(pid), (0.0, ""), 0.0
    for number, case in enumerate(cases):
        for way, raw in enumerate(islice(_ways(case.data, FILE_NAMES[number % len(FILE_NAMES)]), ways)):
            began = time.perf_counter()
            status, _, body = await client.exchange(raw)
            slowest = max(slowest, (time.perf_counter() - began, case.name))
            if status != (200 if case.reads else 422) or b"<script" in body or b"onerror" in body:
                wrong.append(f"{case.name}, way {way}: {status} {body[:120]!r}")
            elif case.reads:
                result = json.loads(body)["result"]
                expected = results.setdefault(case.name, results.get(case.same_as, result))
                if not _equal(result, expected):
                    wrong.append(f"{case.name}, way {way}: another prediction than {case.same_as or 'before'}")
        largest = max(largest, resident(pid) - before)
    health = [(await client.exchange(request("GET", path)))[0] for path in ("/livez", "/readyz")]
    await client.close()
    return {
        "files": len(cases),
        "read": sum(case.reads for case in cases),
        "wrong": wrong,
        "slowest ms": [round(1e3 * slowest[0], 1), slowest[1]],
        "memory growth MB, most": round(largest, 1),
        "health": health,
    }


def _ways(data: bytes, name: str) -> Iterator[bytes]:
    yield request("POST", ROUTE, data, "image/x-other") if data else _empty()
    head = f'--b\r\nContent-Disposition: form-data; name="input"; filename="{name}"\r\nContent-Type: text/html\r\n\r\n'
    yield request("POST", ROUTE, head.encode() + data + b"\r\n--b--\r\n", "multipart/form-data; boundary=b")
    yield request("POST", ROUTE, json.dumps({"input": base64.b64encode(data).decode()}).encode())


def _empty() -> bytes:
    return request("POST", ROUTE, Content_Type="image/png", Content_Length="0")


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["label"] == other["label"] and abs(one["probability"] - other["probability"]) < 1e-4


if __name__ == "__main__":
    main()
