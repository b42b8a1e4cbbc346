"""Connections with time limits: slow clients do not occupy the server."""

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from vitrail.serving.limits import Limits

_INVALID = json.dumps({"error": {"code": "bad_request", "message": "This is not a valid HTTP request."}}).encode()


class TimedProtocol(H11Protocol):
    """HTTP/1.1 connection with a limit for headers, for unread responses, and for the number of connections.

    A client that sends its headers slowly is closed after `header_timeout`, one that does not read its response after
    `write_timeout`. If there are too many connections, the oldest one without a request is closed for the new one, so
    that connections which only wait never keep others out.
    """

    limits = Limits()

    def connection_made(self, transport: Any) -> None:
        """Register the connection and start its clock."""
        super().connection_made(transport)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        if len(self.connections) > self.limits.connections:
            self._make_room()
        self._start("header", self.limits.header_timeout)

    @property
    def waits(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> None:
        idle = [
            each for each in self.connections if isinstance(each, TimedProtocol) and each.waits and each is not self
        ]
        oldest = min(idle, key=lambda each: each.opened, default=self)
        oldest.transport.abort()

    @property
    def opened(self) -> float:
        """Loop time at which the connection began to wait."""
        timer = self._timers.get("header") or self.timeout_keep_alive_task
        return timer.when() if timer is not None else self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Parse data; headers must be complete in time."""
        waited = self.waits
        super().data_received(data)
        if not self.waits:
            self._stop("header")
        elif waited and "header" not in self._timers:
            self._start("header", self.limits.header_timeout)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._stop("header")

    def pause_writing(self) -> None:
        """Limit the time until the client reads on."""
        super().pause_writing()
        self._start("write", self.limits.write_timeout)

    def resume_writing(self) -> None:
        """Continue."""
        super().resume_writing()
        self._stop("write")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        for name in list(self._timers):
            self._stop(name)
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


def timed_protocol(limits: Limits) -> type[TimedProtocol]:
    """Return the protocol class with the limits of a server."""
    return type("TimedProtocol", (TimedProtocol,), {"limits": limits})
