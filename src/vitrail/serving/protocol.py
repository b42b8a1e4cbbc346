"""Connections with time limits: slow clients do not occupy the server."""

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from vitrail.serving.early import EarlyRefusals
from vitrail.serving.limits import RESPONSE_CHUNK, Limits

_INVALID = json.dumps({"error": {"code": "bad_request", "message": "This is not a valid HTTP request."}}).encode()


class TimedProtocol(H11Protocol):
    """HTTP/1.1 connection with a limit for headers, for unread responses, and for the number of connections.

    A client that sends its headers slowly is closed after `header_timeout`, one that reads nothing of its response
    after `write_timeout`, and one that reads a long response slower than `write_rate` as well. If there are too many
    connections, the oldest one without a request is closed for the new one, so that connections which only wait never
    keep others out.
    """

    limits = Limits()
    waiting: dict["TimedProtocol", None] = {}  # noqa: RUF012 - one dictionary for each server, see `timed_protocol`
    """Connections without a request, the oldest first."""
    early: EarlyRefusals | None = None
    """Answers to requests for full queues, which h11 does not see."""
    _unread = 0
    """Bytes of the body of such a request that are still to come."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Register the connection and start its clock."""
        super().connection_made(transport)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._allowance, self._paused_at = self.limits.write_timeout, 0.0
        if len(self.connections) > self.limits.connections:
            oldest = next(iter(self.waiting), self)
            self.waiting.pop(oldest, None)
            oldest.transport.abort()
        self._start("header", self.limits.header_timeout)
        self.waiting[self] = None

    @property
    def waits(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """Answer a request for a full queue, or parse data; headers must be complete in time."""
        if self._unread:
            data = self._drop(data)
            if not data:
                return
        waited = self.waits
        if waited and self._refused(data):
            return
        super().data_received(data)
        if not self.waits:
            self._stop("header")
            self.waiting.pop(self, None)
        elif waited and "header" not in self._timers:
            self._start("header", self.limits.header_timeout)

    def _refused(self, data: bytes) -> bool:
        """Whether data began a request for a full queue; then it is answered."""
        between = self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        if self.early is None or not between or self.flow.write_paused or self.transport.is_closing():
            return False
        answer = self.early.answer(data, self.client, self.server_state.default_headers)
        if answer is None:
            return False
        self.transport.write(answer.response)
        self._unread = answer.unread
        if self._unread:
            self._start("header", self.limits.timeout)  # until the body has arrived
        else:
            self.on_response_complete()
        return True

    def _drop(self, data: bytes) -> bytes:
        """Drop what belongs to the body of a refused request, and return the rest."""
        rest = data[self._unread :]
        self._unread -= len(data) - len(rest)
        if not self._unread:
            self.on_response_complete()
        return rest

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._stop("header")
        if self.waits:
            self.waiting.pop(self, None)
            self.waiting[self] = None

    def pause_writing(self) -> None:
        """Limit the time until the client reads on, for each pause and for the pauses of a response together."""
        super().pause_writing()
        self._paused_at = self.loop.time()
        self._allowance += RESPONSE_CHUNK / self.limits.write_rate
        self._start("write", max(0.0, min(self.limits.write_timeout, self._allowance)))

    def resume_writing(self) -> None:
        """Continue."""
        super().resume_writing()
        self._allowance -= self.loop.time() - self._paused_at
        if self.waits:
            self._allowance = self.limits.write_timeout
        self._stop("write")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        for name in list(self._timers):
            self._stop(name)
        self.waiting.pop(self, None)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Send a response to bytes that are not HTTP, if no other response is under way."""
        try:
            head = [
                ("content-type", "application/json"),
                ("content-length", str(len(_INVALID))),
                ("connection", "close"),
            ]
            parts: tuple[Any, ...] = (
                h11.Response(status_code=400, headers=head, reason=b"Bad Request"),
                h11.Data(data=_INVALID),
                h11.EndOfMessage(),
            )
            for part in parts:
                self.transport.write(self.conn.send(part) or b"")
        except h11.LocalProtocolError:
            pass
        if not self.waits:  # a broken body: the application must not send a second response
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _start(self, name: str, seconds: float) -> None:
        self._stop(name)
        self._timers[name] = self.loop.call_later(seconds, self._expired, name)

    def _stop(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _expired(self, name: str) -> None:
        self._timers.pop(name, None)
        self.transport.abort()


def timed_protocol(limits: Limits, early: EarlyRefusals | None = None) -> type[TimedProtocol]:
    """Return the protocol class with the limits of a server, and its answers to requests for full queues.

    Example:
        >>> timed_protocol(Limits(connections=8)).limits.connections
        8
    """
    return type("TimedProtocol", (TimedProtocol,), {"limits": limits, "waiting": {}, "early": early})
