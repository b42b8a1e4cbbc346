"""Small versions of the batteries of `benchmarks/serving`."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from vitrail.serving.limits import Limits


@pytest.fixture(scope="module")
def batteries() -> Iterator[Any]:
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks" / "serving"))
    before = set(sys.modules)
    yield import_module
    for name in set(sys.modules) - before:
        if "/benchmarks/" in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    monkeypatch.undo()


def test_fuzzed_requests_give_no_500(batteries: Any) -> None:
    """S7, a fiftieth of the battery."""
    fuzz = batteries("fuzz")
    with batteries("launch").LocalServer(Limits(timeout=0.5, header_timeout=0.3, body=60_000), batch=4) as server:
        server.blocked.free.set()
        found = asyncio.run(fuzz.scenario(server, 200, seed=1))
    assert found["500"] == 0, found
    assert found["health"] == [200, 200] and found["a good request"] == 200 and found["held bytes"] == 0
    assert found["by status"][200] > 20


def test_requests_of_gone_clients_are_not_computed(batteries: Any) -> None:
    """S4, a twentieth of the battery, on sockets."""
    cancel = batteries("cancel")
    with batteries("launch").LocalServer(Limits(queue=10, wait=600, connections=200), batch=8) as server:
        found = asyncio.run(cancel.scenario(server, queued=50, running=8, batch=8))
    assert found["of them computed"] == 0 and found["neighbours answered"] == found["neighbours"]
    assert found["answered after them"] == found["waves"] and found["gauges"] == [0, 0] and found["held bytes"] == 0


def test_hostile_images_are_read_or_refused_as_stated(batteries: Any) -> None:
    """C3, each file once: bombs, truncated files, other formats, polyglots, odd pixels, orientations."""
    cases = batteries("hostile_images").corpus()
    assert len(cases) >= 60
    with batteries("launch").LocalServer(Limits(), batch=4) as server:
        server.blocked.free.set()
        found = asyncio.run(batteries("hostile").scenario(server.address, os.getpid(), cases, ways=1))
    assert found["wrong"] == [] and found["health"] == [200, 200]
    assert found["memory growth MB, most"] < 256


@pytest.mark.parametrize("mixed", [False, True], ids=["S3", "S12"])
def test_a_soak_leaks_nothing(batteries: Any, mixed: bool) -> None:
    """Two periods of half a second: files and threads do not grow, responses are right, nothing is a 500."""
    load, limits = batteries("load"), Limits(body=60_000, timeout=1, header_timeout=0.3)
    images = [load.photo(i, (40, 30)) for i in range(4)]
    with batteries("launch").LocalServer(limits, batch=4) as server:
        server.blocked.free.set()
        expected = asyncio.run(_answers(load, server.address, images))
        soak = batteries("soak").Soak(server.address, os.getpid(), images, expected)
        found = asyncio.run(soak.scenario(1.0, 0.4, mixed))
    assert found["500"] == found["wrong answers"] == 0 and found["health"] == [200, 200], found
    assert found["by outcome"]["200"] > 5 and found["growth after warm-up"]["threads"] <= 0
    assert found["growth after warm-up"]["files"] <= 8  # bodies that never end are still waited for


async def _answers(load: Any, address: Any, images: list[bytes]) -> list[Any]:
    client = load.Client(address)
    raw = load.json_requests("/v1/models/model/predict", images)
    found = [json.loads((await client.exchange(each))[2])["result"] for each in raw]
    await client.close()
    return found


def test_slow_clients_are_accepted_and_cut_off(batteries: Any) -> None:
    """S8 with few clients: the normal ones are answered, connections stay at their limit."""
    slow, load = batteries("slow"), batteries("load")

    async def scenario(server: Any) -> list[int]:
        kinds = [slow.loris] * 30 + [slow.reader] * 5 + [slow.sender] * 3
        tasks = [asyncio.ensure_future(kind(server.address)) for kind in kinds]
        await asyncio.sleep(0.2)
        raw = load.request("POST", slow.PREDICT.split()[1], load.photo(0, (40, 30)), "image/jpeg")
        client = load.Client(server.address)
        statuses = [(await client.exchange(raw))[0] for _ in range(5)]
        assert len(server.server.server_state.connections) <= 20 + 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()
        return statuses

    limits = Limits(connections=20, header_timeout=0.3, write_timeout=0.3, timeout=1)
    with batteries("launch").LocalServer(limits, batch=4) as server:
        server.blocked.free.set()
        assert asyncio.run(scenario(server)) == [200] * 5
    assert server.service.budget.used == 0


def test_recovery_ends_after_the_last_slow_half_second(batteries: Any) -> None:
    """S2: the first 1.3 s after an overload are slow."""
    sample = batteries("load").Sample
    after = [sample(t / 10, 1.0 if t < 13 else 0.1, 200, 0.1, {}, b"") for t in range(50)]
    assert batteries("steady").recovery(after, after[20:]) == 1.5


BENCHMARK = """
import sys, time
from launch import free_address, process

def serve(most):
    address = free_address()
    words = f"{sys.executable} -m http.server {address.port} --bind 127.0.0.1 >/dev/null 2>&1 & wait"
    return address.port, process(["sh", "-c", words], address, "/", most=most)

(kept, one), (limited, other) = serve(100), serve(15)
with one, other:
    print(kept, limited, flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_no_server_outlives_its_benchmark() -> None:
    """One is killed at its limit, the other with the benchmark's process, and so are processes that they started."""
    place = Path(__file__).parents[2] / "benchmarks" / "serving"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(place), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", BENCHMARK], stdout=subprocess.PIPE, env=env) as running:
        assert running.stdout is not None
        try:
            kept, limited = map(int, running.stdout.readline().split())
            assert not _ends(limited, 0) and _ends(limited, 40) and not _ends(kept, 0)
        finally:
            running.kill()
    assert _ends(kept, 30)


def _ends(port: int, seconds: float) -> bool:
    """Whether nobody listens on a port any more within that time."""
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
