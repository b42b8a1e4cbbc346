"""The server process: sockets, readiness, drain on SIGTERM."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from errno import EACCES, EADDRINUSE
from math import inf
from time import monotonic
from typing import Any

import uvicorn

from vitrail.errors import VitrailError
from vitrail.serving.access import AccessRules
from vitrail.serving.app import create_app
from vitrail.serving.early import EarlyRefusals
from vitrail.serving.limits import RESPONSE_CHUNK, Limits
from vitrail.serving.protocol import timed_protocol
from vitrail.serving.service import Service

_LOG = logging.getLogger("vitrail.serving")
_STEP = 0.02
_BACKLOG, _ACCEPTED = 4096, 16
"""Connections that the system keeps until they are accepted, so that a flood makes nobody wait for a second SYN; and
those accepted in one turn of the event loop, so that it does not delay requests."""
_UNREAD = RESPONSE_CHUNK
"""Bytes of unread responses that the system takes for a connection. By default they are megabytes, so a client that
asks again and again and reads nothing would have hundreds of requests answered before the first write waits."""
_OTHER_FILES = 256
"""Files that are open besides connections: libraries, threads, spooled bodies."""


class DrainingServer(uvicorn.Server):
    """Server that answers accepted requests before it ends.

    SIGTERM or SIGINT: readiness is 503 at once and new predictions are refused with 503, accepted ones finish, then the
    socket is closed. A second signal, or the end of the time for it, ends the rest.

    Args:
        config: configuration of uvicorn.
        service: state of the server.
        on_ready: called once all models are ready.

    Attributes:
        lost: accepted requests that did not get their answer in time.
    """

    def __init__(self, config: uvicorn.Config, service: Service, on_ready: Callable[[], None]):
        super().__init__(config)
        self.service, self.on_ready, self.lost = service, on_ready, 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and begin to prepare the models."""
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(_BACKLOG)  # asyncio has set it to the number of connections that it accepts at once
        self.service.metrics.connections.set_function(lambda: len(self.server_state.connections))
        self._spawn(self._prepare())

    async def _prepare(self) -> None:
        try:
            await self.service.start()
        except Exception as error:  # noqa: BLE001 - raised by `run_server`
            self.service.failure, self.should_exit = error, True
        else:
            self.on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:  # type: ignore[override]
        """Handle signals while the server runs."""
        loop, handled = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
        try:
            for each in handled:
                loop.add_signal_handler(each, self.drain)
        except (NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
            yield
            return
        try:
            yield
        finally:
            for each in handled:
                loop.remove_signal_handler(each)

    def drain(self) -> None:
        """Begin to drain; the second time, end at once."""
        if self.service.draining:
            self.force_exit = self.should_exit = True
        else:
            self.service.draining = True
            _LOG.info("draining: accepted requests have %g seconds", self.service.limits.drain)
            self._spawn(self._drained())

    async def _drained(self) -> None:
        limits, began = self.service.limits, monotonic()
        while monotonic() - began < limits.drain and not self.should_exit:
            await asyncio.sleep(_STEP)
            if self.service.idle and monotonic() - began >= limits.grace:
                break
        self.lost = self.service.active
        self.config.timeout_graceful_shutdown = 0 if self.lost else 2
        self.should_exit = True

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def make_server(service: Service, rules: AccessRules, on_ready: Callable[[], None] = lambda: None) -> DrainingServer:
    """Return the server of a service, not running yet.

    Args:
        service: the models.
        rules: access rules.
        on_ready: called once all models are ready.
    """
    config = uvicorn.Config(
        create_app(service, rules),
        http=timed_protocol(service.limits, EarlyRefusals(service, rules)),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=2 * service.limits.headers,
        timeout_keep_alive=max(int(service.limits.header_timeout), 1),
        backlog=_ACCEPTED,
    )
    return DrainingServer(config, service, on_ready)


def run_server(server: DrainingServer, listening: socket.socket) -> int:
    """Serve until a signal ends it.

    Args:
        server: the server.
        listening: socket to listen on.

    Returns:
        Number of accepted requests without an answer: 0 if the drain was complete.

    Raises:
        VitrailError: a model could not be prepared.
    """
    try:
        asyncio.run(server.serve(sockets=[listening]))
    finally:
        server.service.close()
    if server.service.failure is not None:
        raise server.service.failure
    return server.lost


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 is any free one.

    Raises:
        VitrailError: the address is in use, or not one of this machine, or the port is not one.

    Example:
        >>> with listen("127.0.0.1", 0) as held:
        ...     held.getsockname()[0]
        '127.0.0.1'
    """
    if not 0 <= port <= 65_535:
        raise VitrailError(f"port is {port}; it must be between 0 and 65535, and 0 takes a free one.")
    made: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNREAD)  # accepted connections inherit it
        made.bind(address)
    except OSError as error:
        if made is not None:
            made.close()
        remedy = "Choose an address of this machine with --host."
        if error.errno in (EADDRINUSE, EACCES):
            remedy = "Choose another --port; 0 takes a free one."
        raise VitrailError(f"Cannot listen on {host}:{port}: {error.strerror or error}. {remedy}") from error
    made.listen(_BACKLOG)
    made.setblocking(False)
    return made


def fit_open_files(limits: Limits) -> Limits:
    """Raise the number of files that the process may open to that of its connections, as far as the system allows.

    Returns:
        The limits, with fewer connections if the system allows fewer files.

    Example:
        >>> fit_open_files(Limits(connections=8)).connections
        8
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return limits
    needed = limits.connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        needed = hard
        limits = replace(limits, connections=max(hard - _OTHER_FILES, 1))
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return limits


def limits_from(**values: Any) -> Limits:
    """Return limits with those that were given.

    Raises:
        VitrailError: one is not a positive number.

    Example:
        >>> limits_from(queue=2, timeout=5.0).timeout
        5.0
        >>> limits_from(timeout=float("nan"))
        Traceback (most recent call last):
        vitrail.errors.VitrailError: timeout is nan; it must be a number above 0.
    """
    for name, value in values.items():
        if not 0 < value < inf:
            raise VitrailError(f"{name} is {value}; it must be a number above 0.")
    return Limits(**values)
