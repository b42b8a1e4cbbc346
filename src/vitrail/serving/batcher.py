"""Dynamic batching: a bounded queue and one worker thread for each model.

A job is admitted if the queue has room, decoded in a pool of threads, and computed with the jobs that are ready by
then. The worker waits for more only while admitted jobs are still being decoded, and at most `window` seconds: a single
request is computed at once, and under load a batch collects while the one before it is computed.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import inf
from threading import Condition, Thread
from time import monotonic
from traceback import extract_tb
from typing import Any

from vitrail.errors import VitrailError
from vitrail.serving.budget import MemoryBudget, held_bytes
from vitrail.serving.job import Job, Outcome, State
from vitrail.serving.metrics import ModelMetrics
from vitrail.serving.refusal import Refusal

_LOG = logging.getLogger("vitrail.serving")


class Abandoned(Exception):
    """The job was cancelled: its client is gone."""


class Batcher:
    """Queue and worker thread of one model.

    Args:
        loop: event loop that receives the outcomes.
        pool: threads that decode inputs.
        metrics: metrics of the model.
        budget: memory of decoded inputs.
        batch: most jobs of a batch.
        capacity: most waiting jobs.
        window: most seconds that a job waits for others to be decoded.
        wait: most seconds of work ahead of a job that is admitted, by the measured speed. After an overload, a queue of
            `wait` seconds is empty within `wait / (1 - load)` seconds.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pool: ThreadPoolExecutor,
        metrics: ModelMetrics,
        budget: MemoryBudget,
        batch: int,
        capacity: int,
        window: float = 0.005,
        wait: float = inf,
    ):
        self.loop, self.pool, self.metrics, self.budget = loop, pool, metrics, budget
        self.batch, self.capacity, self.window, self.wait = batch, capacity, window, wait
        self._least = batch  # inputs that may wait however long they take; `batch` is 1 if batches save nothing
        self._ready: deque[Job] = deque()
        self._loading = 0
        self._running: Sequence[Job] = ()
        self._changed = Condition()
        self._closed = False
        self._seconds = 0.05  # moving average of the compute time of one job
        self._thread = self._start()

    @property
    def pending(self) -> int:
        """Number of waiting jobs."""
        return self._loading + len(self._ready)

    @property
    def busy_since(self) -> float | None:
        """Monotonic time at which the running batch began, None if there is none."""
        running = self._running
        return running[0].started if running else None

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not self.pending and not self._running

    def submit(self, jobs: Sequence[Job]) -> None:
        """Admit jobs, all or none.

        Raises:
            Refusal: the queue has no room for them.
        """
        with self._changed:
            if self.pending + len(jobs) > self.capacity or self._late > 0:
                raise self._full(len(jobs))
            self._loading += len(jobs)
            self.metrics.pending.set(self.pending)
        for job in jobs:
            self.pool.submit(self._load, job)

    def refusal_now(self) -> Refusal | None:
        """Return what one more input would be answered with, None if the queue has room for it."""
        return self._full(1) if self.pending >= self.capacity or self._late > 0 else None

    def check_room(self) -> None:
        """Refuse early, before a body is read, if the queue is full.

        Raises:
            Refusal: it is.
        """
        if (refusal := self.refusal_now()) is not None:
            raise refusal

    @property
    def _late(self) -> float:
        """Seconds of work above `wait`; a batch may always wait."""
        return self.pending * self._seconds - self.wait if self.pending >= self._least else 0.0

    def _full(self, count: int) -> Refusal:
        if count > self.capacity:
            return Refusal(413, "too_large", f"{count} inputs never fit into the queue of {self.capacity}.")
        excess = max(self._seconds * (self.pending + count - self.capacity), self._late)
        left = max(excess, 0.0) + self._seconds * self.batch
        message = f"The queue is full: {self.pending} inputs, {self.pending * self._seconds:.1f} s of work."
        return Refusal(429, "queue_full", message, retry_after=left)

    def cancel(self, jobs: Iterable[Job]) -> None:
        """Cancel jobs: those that wait are never computed, those that run are not delivered."""
        with self._changed:
            for job in jobs:
                if job.state is State.READY:
                    self._ready.remove(job)
                    self._release(job)
                elif job.state is State.LOADING:
                    self._loading -= 1
                if job.state is not State.DONE:
                    job.state = State.CANCELLED
            self.metrics.pending.set(self.pending)
            self._changed.notify_all()

    def close(self) -> None:
        """End the worker once the queue is empty; jobs still in it are computed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def check_wanted(self) -> None:
        """Raise `Abandoned` if nobody waits for the running batch any more; called by long work."""
        if self._running and not any(job.wanted for job in self._running):
            raise Abandoned

    # Threads of the pool

    def _load(self, job: Job) -> None:
        began, error, held = monotonic(), None, 0
        try:
            if job.load is not None and job.wanted:
                job.loaded = job.load()
                held = held_bytes(job.loaded)
                self.budget.take(held)
        except Exception as failure:  # noqa: BLE001 - whatever an input causes is the answer to it
            error, held = _public(failure), 0
        job.load_seconds = monotonic() - began
        with self._changed:
            if job.state is State.CANCELLED:
                self.budget.give(held)
                job.loaded = None
                return
            job.held = held
            self._loading -= 1
            if error is None:
                job.state = State.READY
                self._ready.append(job)
            self.metrics.pending.set(self.pending)
            self._changed.notify_all()
        self.metrics.load.observe(job.load_seconds)
        if error is not None:
            job.state, job.started = State.DONE, monotonic()
            self._deliver([(job, job.outcome(None, error, job.started, 1))])

    # Worker thread

    def _start(self) -> Thread:
        thread = Thread(target=self._guarded, name=f"vitrail-{self.metrics.model}", daemon=True)
        thread.start()
        return thread

    def _guarded(self) -> None:
        """Work; after a failure that ends the thread, answer its jobs and start another one."""
        try:
            self._work()
        except BaseException as failure:  # noqa: BLE001 - a dead worker would leave its requests without an answer
            _log_failure("the worker thread ended", failure)
            lost, now = list(self._running), monotonic()
            error = Refusal(503, "worker_failed", "The worker failed; it was started again.", retry_after=1)
            self._finish(lost, [(job, job.outcome(None, error, now, len(lost))) for job in lost])
            self.metrics.restarts.inc()
            self._thread = self._start()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or (self._closed and not self._loading))
                if not self._ready:
                    return
                if self.window and self._loading and len(self._ready) < self.batch:
                    self._changed.wait_for(lambda: not self._loading or len(self._ready) >= self.batch, self.window)
                jobs = self._take()
            if jobs:
                self._finish(jobs, self._outcomes(jobs))

    def _take(self) -> list[Job]:
        """Return the next batch: the oldest job and others of its key, in their order."""
        jobs, others = list[Job](), list[Job]()
        while self._ready and len(jobs) < self.batch:
            job = self._ready.popleft()
            if not job.wanted:  # its request has timed out
                job.state = State.CANCELLED
                self._release(job)
            elif not jobs or (job.key is not None and job.key == jobs[0].key):
                jobs.append(job)
            else:
                others.append(job)
        self._ready.extendleft(reversed(others))
        now = monotonic()
        for job in jobs:
            job.state, job.started = State.RUNNING, now
        self._running = jobs
        self.metrics.pending.set(self.pending)
        self.metrics.running.set(len(jobs))
        return jobs

    def _outcomes(self, jobs: list[Job]) -> list[tuple[Job, Outcome]]:
        """Compute a batch; if it fails, each job alone, so that a bad input does not fail the others."""
        values, failure = _attempt(jobs)
        if failure is None:
            now = monotonic()
            self._observe(jobs, now - jobs[0].started)
            return [(job, job.outcome(value, None, now, len(jobs))) for job, value in zip(jobs, values, strict=True)]
        if len(jobs) > 1 and not isinstance(failure, Abandoned):
            return [pair for job in jobs for pair in self._outcomes([job])]
        error = _public(failure)
        return [(job, job.outcome(None, error, monotonic(), 1)) for job in jobs]

    def _observe(self, jobs: Sequence[Job], seconds: float) -> None:
        if jobs[0].load is not None:  # traces and streams take much longer than predictions
            self._seconds += 0.2 * (seconds / len(jobs) - self._seconds)
        self.metrics.compute.observe(seconds)
        self.metrics.batch.observe(len(jobs))
        self.metrics.executions.inc()
        self.metrics.inputs.inc(len(jobs))
        for job in jobs:
            self.metrics.queue.observe(max(job.started - job.admitted - job.load_seconds, 0.0))

    def _finish(self, jobs: Sequence[Job], outcomes: list[tuple[Job, Outcome]]) -> None:
        with self._changed:
            for job in jobs:
                self._release(job)
                job.state = State.CANCELLED if job.state is State.CANCELLED else State.DONE
            self._running = ()
            self.metrics.running.set(0)
        self._deliver(outcomes)

    def _release(self, job: Job) -> None:
        self.budget.give(job.held)
        job.held, job.loaded = 0, None

    def _deliver(self, outcomes: list[tuple[Job, Outcome]]) -> None:
        try:
            self.loop.call_soon_threadsafe(_set_results, outcomes)
        except RuntimeError:  # the event loop is closed: the process ends
            _LOG.warning("%d results came after the end of the event loop", len(outcomes))


def _set_results(outcomes: Iterable[tuple[Job, Outcome]]) -> None:
    for job, outcome in outcomes:
        if not job.future.done():
            job.future.set_result(outcome)


def _attempt(jobs: Sequence[Job]) -> tuple[Sequence[Any], Exception | None]:
    """Return the values of jobs, or the failure."""
    try:
        values = list(jobs[0].run([job.loaded for job in jobs]))
        if len(values) != len(jobs):
            raise RuntimeError(f"{len(values)} values for {len(jobs)} jobs")
        return values, None
    except Exception as failure:  # noqa: BLE001 - whatever an input causes is the answer to it
        return (), failure


def _public(failure: Exception) -> Exception:
    """Return a failure as an answer: the fault of an input as it is, anything else without details."""
    if isinstance(failure, VitrailError | Refusal):
        return failure
    if isinstance(failure, Abandoned):
        return Refusal(504, "timeout", "The request took too long.")
    _log_failure("a job failed", failure)
    if isinstance(failure, MemoryError) or "out of memory" in str(failure).lower():
        return Refusal(503, "memory", "There is not enough memory for this input.", retry_after=1)
    return Refusal(500, "internal", "The model failed on this input.")


def _log_failure(what: str, failure: BaseException) -> None:
    """Log type and place of a failure; its message may repeat a payload."""
    place = " < ".join(f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in extract_tb(failure.__traceback__))
    _LOG.error("%s: %s in %s", what, type(failure).__name__, place)
