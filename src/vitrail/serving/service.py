"""The state of a server: models with their queues, limits, metrics, readiness and drain."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from starlette.requests import Request

from vitrail.data.parallel import cores
from vitrail.errors import VitrailError
from vitrail.serving.batcher import Batcher
from vitrail.serving.body import disconnected, read_body
from vitrail.serving.budget import MemoryBudget
from vitrail.serving.job import Job, Outcome
from vitrail.serving.limits import Limits
from vitrail.serving.metrics import Metrics, ModelMetrics
from vitrail.serving.refusal import ClientGone, Refusal
from vitrail.serving.served_model import ServedModel
from vitrail.serving.upload import Upload, parse_upload

_LOG = logging.getLogger("vitrail.serving")
_INLINE = 1 << 14
"""Bytes of a body up to which it is parsed in the event loop."""

Found = TypeVar("Found")


class Service:
    """Models behind bounded queues.

    Args:
        models: the models.
        limits: limits of requests.
        window: most seconds that an input waits for others of its batch to be decoded.
        runs: folder of runs whose reports the page shows.

    Attributes:
        draining: whether SIGTERM was received: accepted requests finish, no others are accepted.
        active: requests between their first byte and their response, health checks excepted.
        sessions: cookie values that may read reports of runs.
        failure: failure of a warm-up; the server ends with it.
    """

    def __init__(self, models: Sequence[ServedModel], limits: Limits, window: float = 0.005, runs: Path | None = None):
        self.models = {model.name: model for model in models}
        self.limits, self.window, self.runs = limits, window, runs
        self.metrics, self.budget = Metrics(), MemoryBudget(limits.memory)
        self.draining, self.active = False, 0
        self.sessions: set[str] = set()
        self.failure: Exception | None = None
        self._batchers: dict[str, Batcher] = {}
        self._of: dict[str, ModelMetrics] = {name: ModelMetrics(self.metrics, name) for name in self.models}
        self._pool = ThreadPoolExecutor(max(2, cores()), thread_name_prefix="vitrail-load")

    # Life

    async def start(self) -> None:
        """Start the workers and warm the models up, one after the other; returns once all are ready."""
        loop = asyncio.get_running_loop()
        for name, model in self.models.items():
            batch, capacity = model.options.batch, self.limits.queue * model.options.batch
            times = self.window, self.limits.wait
            batcher = Batcher(loop, self._pool, self._of[name], self.budget, batch, capacity, *times)
            model.check = batcher.check_wanted
            self._batchers[name] = batcher
        for name, model in self.models.items():
            began = monotonic()
            await loop.run_in_executor(self._pool, model.warm_up)
            if model.sequential:
                self._batchers[name].batch = 1
            self._of[name].ready.set(1)
            _LOG.info("%s is ready after %.1f s: %s", name, monotonic() - began, model.form or "one implementation")

    def close(self) -> None:
        """End the threads once their work is done."""
        for batcher in self._batchers.values():
            batcher.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def status(self) -> str:
        """State of the server: `ready`, `loading`, `draining`, or `stuck` if a batch exceeds the timeout."""
        if self.draining:
            return "draining"
        if self.failure is not None or not all(model.ready for model in self.models.values()):
            return "loading"
        return "stuck" if self.stuck(self.limits.timeout) else "ready"

    def stuck(self, seconds: float) -> bool:
        """Return whether a batch has been running for longer than that."""
        starts = [batcher.busy_since for batcher in self._batchers.values()]
        return any(start is not None and monotonic() - start > seconds for start in starts)

    @property
    def idle(self) -> bool:
        """Whether no request is active and no job waits or runs."""
        return not self.active and all(batcher.idle for batcher in self._batchers.values())

    # Requests

    def find(self, name: str) -> ServedModel:
        """Return a model that accepts requests.

        Raises:
            Refusal: there is no such model, it is not ready, or the server is draining.
        """
        model = self.models.get(name)
        if model is None:
            raise Refusal(404, "unknown_model", "There is no model of this name; GET /v1/models lists them.")
        if self.draining:
            raise Refusal(503, "draining", "The server is shutting down.", retry_after=1)
        if not model.ready:
            raise Refusal(503, "loading", "The model is being prepared.", retry_after=2)
        return model

    def refusal_now(self, name: str) -> Refusal | None:
        """Return the refusal of a model whose queue is full, None if there is another answer to a request."""
        model = self.models.get(name)
        return self._batchers[name].refusal_now() if model is not None and model.ready and not self.draining else None

    def count_refusal(self, name: str, refusal: Refusal) -> None:
        """Count a request that was refused before `request`."""
        self._of[name].failed(refusal.code)

    @contextmanager
    def request(self, model: ServedModel) -> Iterator[None]:
        """Count a request of a model: duration, success, or reason of its failure."""
        metrics, began = self._of[model.name], monotonic()
        self.active += 1
        try:
            yield
        except ClientGone:
            metrics.failed("client_gone")
            raise
        except Refusal as refusal:
            metrics.failed(refusal.code)
            raise
        except Exception as error:
            metrics.failed("bad_request" if isinstance(error, VitrailError) else "internal")
            raise
        else:
            metrics.success.inc()
            metrics.request.observe(monotonic() - began)
        finally:
            self.active -= 1

    def deadline(self, request: Request) -> float:
        """Return the monotonic time by which a request has its response."""
        return request.scope.setdefault("vitrail.began", monotonic()) + self.limits.timeout

    async def upload(self, request: Request, model: ServedModel, strict: bool = True) -> Upload:
        """Read the body of a request.

        Args:
            request: the request.
            model: its model.
            strict: whether unknown fields are an error; otherwise they are in `fields`.

        Raises:
            Refusal: the queue is full already, or the body is malformed or above a limit.
        """
        self._batchers[model.name].check_room()
        kind, query = request.headers.get("content-type", ""), request.scope["query_string"]
        body = await read_body(request, self.limits, self.budget)

        def parse() -> Upload:
            return parse_upload(body, kind, query, model.kind, self.limits, strict)

        return parse() if len(body) <= _INLINE else await self.in_pool(parse)

    async def in_pool(self, function: Callable[[], Found]) -> Found:
        """Run a function in a thread of the pool."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    async def predict(self, model: ServedModel, upload: Upload, request: Request) -> list[Outcome]:
        """Return the outcome of each input of a request.

        Raises:
            VitrailError: an option is not valid.
            Refusal: the queue is full, or time is up.
            ClientGone: the client has closed its connection; inputs that waited are not computed.
        """
        predictor = model.find(upload.options)
        key = tuple(sorted(upload.options.items()))

        def compute(loaded: list[Any]) -> Any:
            return predictor.predict(loaded)

        def job(content: bytes | str, number: int) -> Job:
            def load() -> Any:
                item = model.item(content, number, upload.draw)
                return item, predictor.load(item)

            return Job(load, key, compute, _future(), self.deadline(request))

        jobs = [job(content, number) for number, content in enumerate(upload.inputs)]
        self._batchers[model.name].submit(jobs)
        return await self._finished(model, jobs, request)

    async def call(self, model: ServedModel, function: Callable[[], object], request: Request) -> Outcome:
        """Return the outcome of a function that runs alone on the thread of a model, through its queue.

        Raises:
            VitrailError, Refusal: the function raised it.
        """
        job = Job(None, None, lambda loaded: [function()], _future(), self.deadline(request))
        self._batchers[model.name].submit([job])
        [outcome] = await self._finished(model, [job], request)
        if outcome.error is not None:
            raise outcome.error
        return outcome

    async def stream(
        self, model: ServedModel, function: Callable[[], Iterator[Found]], request: Request
    ) -> AsyncIterator[Found]:
        """Yield the values of an iterator that is consumed alone on the thread of a model.

        Closing the connection, or leaving the loop, ends the work.
        """
        pieces: asyncio.Queue[Any] = asyncio.Queue()
        loop, batcher = asyncio.get_running_loop(), self._batchers[model.name]

        def run(loaded: list[Any]) -> list[int]:
            count = 0
            for piece in function():
                batcher.check_wanted()
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
                count += 1
            return [count]

        job = Job(None, None, run, _future(), self.deadline(request))
        job.future.add_done_callback(lambda _: pieces.put_nowait(_END))
        batcher.submit([job])
        watch = asyncio.ensure_future(self._finished(model, [job], request))
        watch.add_done_callback(lambda _: pieces.put_nowait(_END))
        try:
            while (piece := await pieces.get()) is not _END:
                yield piece
            [outcome] = await watch
            if outcome.error is not None:
                raise outcome.error
        finally:
            watch.cancel()
            batcher.cancel([job])

    async def _finished(self, model: ServedModel, jobs: Sequence[Job], request: Request) -> list[Outcome]:
        gone = asyncio.ensure_future(disconnected(request))
        done = asyncio.ensure_future(_all(job.future for job in jobs))
        try:
            left = max(self.deadline(request) - monotonic(), 0.0)
            await asyncio.wait((gone, done), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                return done.result()
            if gone.done():
                raise ClientGone
            raise Refusal(504, "timeout", f"There was no answer in {self.limits.timeout:g} seconds.", retry_after=1)
        finally:
            if not done.done():
                self._batchers[model.name].cancel(jobs)
            await _cancelled(gone, done)


_END = object()


async def _all(futures: Any) -> list[Outcome]:
    return [await future for future in futures]


async def _cancelled(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _future() -> "asyncio.Future[Outcome]":
    return asyncio.get_running_loop().create_future()
