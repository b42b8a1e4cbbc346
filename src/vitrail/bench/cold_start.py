"""Cold start (seconds to the first output) and memory, each candidate in its own process."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

from vitrail.bench.candidate import CandidateUnavailable
from vitrail.bench.model_spec import ModelSpec
from vitrail.errors import ResourceError

_CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "VITRAIL_CACHE")
_LIMIT = 1800  # timeout of a subprocess in seconds


@dataclass(frozen=True)
class ColdStart:
    """Cold start and memory of one candidate.

    Args:
        name: the candidate.
        way: its variant.
        batch: images in the batch.
        first: seconds from the built model to its first output, with empty caches; None if not measured.
        again: the same in a second process, with the caches of the first.
        peak: peak memory of the process until the first output in bytes, Python and libraries included.
        running: peak memory in bytes during the calls after that.
        reason: reason of a failure, or None.
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
    """Measure the cold start of a candidate in new processes.

    Args:
        subject: the model.
        name: the candidate.
        way: its variant.
        batch: images in a batch.
        precision: `fp32`, `bf16` or `int8`.
        threads: number of threads.
        warm: use the user's caches and one process; else empty caches, and a second process with the caches of the
            first.
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
    """Run one variant of a candidate in a subprocess, which it may crash.

    Raises:
        CandidateUnavailable: it failed.
    """
    try:
        _child(_task(subject, name, way, batch, precision, threads), {})
    except ResourceError as error:
        raise CandidateUnavailable(f"tried alone, {error}") from error


def _task(subject: ModelSpec, name: str, way: str, batch: int, precision: str, threads: int) -> dict[str, Any]:
    task = {"name": name, "way": way, "batch": batch, "precision": precision, "threads": threads}
    return {**task, "subject": subject.to_dict()}


def _child(task: dict[str, Any], caches: dict[str, str]) -> dict[str, Any]:
    """Run one subprocess and return its measurements.

    Raises:
        ResourceError: it crashed, or timed out.
    """
    threads = str(task["threads"])
    environment = {**os.environ, **caches, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [sys.executable, "-m", "vitrail.bench.cold_start_child", json.dumps(task)]
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
