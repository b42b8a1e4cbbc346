"""Seconds until the first answer, and memory: each contender alone in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

from vitrail.errors import ResourceError
from vitrail.lab.bench.candidate import Unavailable
from vitrail.lab.bench.model_spec import ModelSpec

_CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "VITRAIL_CACHE")
_LIMIT = 1800  # seconds after which a process that does not answer is ended


@dataclass(frozen=True)
class ColdStart:
    """How one contender began.

    Args:
        name: the contender.
        way: how it ran the model.
        batch: images in the batch.
        first: seconds from the built model to its first answer, nothing compiled before; None where that was not asked.
        again: the same in a second process, which finds what the first one compiled.
        peak: most bytes that the process held until the first answer, its Python and libraries included.
        running: most bytes that it held while it answered after that.
        reason: why there are no figures, or None.
    """

    name: str
    way: str = ""
    batch: int = 0
    first: float | None = None
    again: float | None = None
    peak: int | None = None
    running: int | None = None
    reason: str | None = None


def measure_start(
    subject: ModelSpec, name: str, way: str, *, batch: int, precision: str, threads: int, warm: bool = False
) -> ColdStart:
    """Let a contender begin in fresh processes.

    Args:
        subject: the model.
        name: the contender.
        way: which of its ways.
        batch: images in a batch.
        precision: `fp32`, `bf16` or `int8`.
        threads: threads to compute with.
        warm: use what the user's caches hold, and one process; else empty caches, and a second process that finds
            what the first one left there.
    """
    task = _task(subject, name, way, batch, precision, threads)
    try:
        if warm:
            found = _child(task, {})
            return ColdStart(name, way, batch, None, found["seconds"], found["peak"], found["running"])
        with tempfile.TemporaryDirectory(prefix="vitrail-bench-") as folder:
            caches = {variable: os.path.join(folder, variable.lower()) for variable in _CACHES}
            found, again = _child(task, caches), _child(task, caches)
        return ColdStart(name, way, batch, found["seconds"], again["seconds"], again["peak"], again["running"])
    except ResourceError as error:
        return ColdStart(name, way, batch, reason=str(error))


def try_alone(subject: ModelSpec, name: str, way: str, *, batch: int, precision: str, threads: int) -> None:
    """Let one way of a contender answer in a process of its own, which it may take down.

    Raises:
        Unavailable: it did not answer.
    """
    try:
        _child(_task(subject, name, way, batch, precision, threads), {})
    except ResourceError as error:
        raise Unavailable(f"tried alone, {error}") from error


def _task(subject: ModelSpec, name: str, way: str, batch: int, precision: str, threads: int) -> dict[str, Any]:
    task = {"name": name, "way": way, "batch": batch, "precision": precision, "threads": threads}
    return {**task, "subject": subject.to_dict()}


def _child(task: dict[str, Any], caches: dict[str, str]) -> dict[str, Any]:
    """Run one process and return what it measured.

    Raises:
        ResourceError: it died, or took too long.
    """
    threads = str(task["threads"])
    environment = {**os.environ, **caches, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [sys.executable, "-m", "vitrail.lab.bench.cold_start_child", json.dumps(task)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_LIMIT, check=False)
    except subprocess.TimeoutExpired as error:
        raise ResourceError(f"no answer within {_LIMIT} seconds") from error
    if done.returncode < 0:
        raise ResourceError(f"its process died of {signal.Signals(-done.returncode).name}")
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise ResourceError(f"its process ended with {done.returncode}: {(said or ['it said nothing'])[-1][:300]}")
    return json.loads(done.stdout.splitlines()[-1])
