"""One input of a request on its way through queue and worker."""

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import Enum
from time import monotonic
from typing import Any, NamedTuple


class State(Enum):
    """Where a job is."""

    LOADING = "loading"
    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


class Outcome(NamedTuple):
    """The outcome of a job.

    Args:
        value: the result; None after a failure.
        error: the failure: a `VitrailError` of the input, or a `Refusal`.
        load_ms: decoding time.
        queue_ms: waiting time, without decoding.
        compute_ms: time of the batch.
        batch: inputs in the batch.
    """

    value: Any = None
    error: Exception | None = None
    load_ms: float = 0.0
    queue_ms: float = 0.0
    compute_ms: float = 0.0
    batch: int = 1

    def timing(self) -> dict[str, float]:
        """Return the times for a response."""
        names = ("load_ms", "queue_ms", "compute_ms")
        return {**{name: round(getattr(self, name), 3) for name in names}, "batch": self.batch}


@dataclass(eq=False)
class Job:
    """An input, or a function that needs the model for itself.

    Args:
        load: decodes the input, in a thread of the pool; None if there is nothing to decode.
        key: jobs of equal keys can share a batch; None never shares.
        run: computes the values of jobs with this key, given their loaded inputs.
        future: receives the `Outcome`, in the event loop.
        deadline: monotonic time after which nobody waits for it.
    """

    load: Callable[[], object] | None
    key: Hashable
    run: Callable[[list[Any]], Any]
    future: "asyncio.Future[Outcome]"
    deadline: float
    state: State = State.LOADING
    loaded: Any = None
    held: int = 0
    admitted: float = field(default_factory=monotonic)
    load_seconds: float = 0.0
    started: float = 0.0

    @property
    def wanted(self) -> bool:
        """Whether a client still waits for it."""
        return self.state is not State.CANCELLED and monotonic() < self.deadline

    def outcome(self, value: object, error: Exception | None, ended: float, batch: int) -> Outcome:
        """Return its outcome, with its times."""
        waited = max(self.started - self.admitted - self.load_seconds, 0.0)
        return Outcome(value, error, 1e3 * self.load_seconds, 1e3 * waited, 1e3 * (ended - self.started), batch)
