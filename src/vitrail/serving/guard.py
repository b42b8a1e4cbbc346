"""Outermost layer of the application: request ids, log, security headers, and a response to every failure."""

import json
import logging
import re
import secrets
from collections.abc import Iterable, Mapping
from time import monotonic
from traceback import extract_tb
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitrail.errors import VitrailError
from vitrail.serving.access import AccessRules
from vitrail.serving.body import HELD
from vitrail.serving.budget import MemoryBudget
from vitrail.serving.limits import RESPONSE_CHUNK
from vitrail.serving.metrics import Metrics
from vitrail.serving.refusal import ClientGone, Refusal
from vitrail.serving.service import Service

_LOG = logging.getLogger("vitrail.serving")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
"""Headers of every response; a route may replace one."""
_ENCODED = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


class Guard:
    """ASGI application around another.

    Args:
        app: the application.
        service: state of the server.
        rules: access rules.
    """

    def __init__(self, app: ASGIApp, service: Service, rules: AccessRules):
        self.app, self.service, self.rules = app, service, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        response = _Response(scope, send, self.service.budget, closing=self.service.draining)
        try:
            try:
                self.rules.check(scope)
                await self.app(scope, receive, response.send)
            except ClientGone:
                response.status = 499
            except Exception as error:  # noqa: BLE001 - answered with 500, logged without its message
                await response.fail(error, receive)
        finally:
            self.service.budget.give(scope.pop(HELD, 0))
            self._record(scope, response)

    def _record(self, scope: Scope, response: "_Response") -> None:
        route = getattr(scope.get("route"), "path", "none")
        name = scope.get("path_params", {}).get("name") if response.status not in (401, 404) else None
        answered = Answered(route, name, response.status, response.request_id, response.began, response.size)
        record(self.service.metrics, scope, answered)


class Answered(NamedTuple):
    """What is recorded of a response: route, model, status, request id, when its request began, bytes of the body."""

    route: str
    model: str | None
    status: int
    request_id: str
    began: float
    size: int


def record(metrics: Metrics, scope: Mapping[str, Any], answered: Answered) -> None:
    """Count a response, and log it without its payload."""
    metrics.responses.labels(answered.route, str(answered.status)).inc()
    if _LOG.isEnabledFor(logging.INFO):
        entry = {
            "request_id": answered.request_id,
            "client": (scope.get("client") or ("",))[0],
            "method": scope["method"] if scope["method"].isalpha() else "none",
            "route": answered.route,
            "model": answered.model,
            "status": answered.status,
            "ms": round(1e3 * (monotonic() - answered.began), 2),
            "bytes": answered.size,
        }
        _LOG.info(json.dumps(entry))


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the request id that a client chose, or a new one if it chose none or one that cannot be logged.

    Example:
        >>> request_id_of([(b"x-request-id", b"a.1")]), len(request_id_of([(b"x-request-id", b"a b")]))
        ('a.1', 16)
    """
    given = next((value for name, value in headers if name == b"x-request-id"), b"").decode("latin-1")
    return given if _ID.fullmatch(given) else secrets.token_hex(8)


class _Response:
    """The response to one request, on its way out."""

    def __init__(self, scope: Scope, send: Send, budget: MemoryBudget, closing: bool):
        self._scope, self._send, self._budget, self._closing = scope, send, budget, closing
        self.began, self.status, self.size, self.started = monotonic(), 0, 0, False
        scope.setdefault("vitrail.began", self.began)
        self.request_id = request_id_of(scope["headers"])
        scope["vitrail.request_id"] = self.request_id

    async def send(self, message: Message) -> None:
        """Send a message, with the headers of every response.

        Raises:
            Refusal: the body would exceed the memory of all requests; nothing was sent.
        """
        if message["type"] == "http.response.start":
            await self._begin(message)
        else:
            await self._pieces(message.get("body", b""), message.get("more_body", False))

    async def _begin(self, message: Message) -> None:
        own = list(message.get("headers", ()))
        values = {name.lower(): value for name, value in own}
        size = int(values.get(b"content-length", b"0"))
        if size > RESPONSE_CHUNK:  # it is held until the client has read it
            self._budget.take(size)
            self._scope[HELD] = self._scope.get(HELD, 0) + size
        self.started, self.status = True, message["status"]
        own += [pair for pair in _ENCODED if pair[0] not in values]
        own.append((b"x-request-id", self.request_id.encode()))
        if self._closing:
            own.append((b"connection", b"close"))
        await self._send({**message, "headers": own})

    async def _pieces(self, body: bytes, more: bool) -> None:
        """Send a body in pieces: each waits until the client has read most of those before it."""
        self.size += len(body)
        for at in range(0, max(len(body), 1), RESPONSE_CHUNK):
            piece, rest = body[at : at + RESPONSE_CHUNK], more or at + RESPONSE_CHUNK < len(body)
            await self._send({"type": "http.response.body", "body": piece, "more_body": rest})

    async def fail(self, error: Exception, receive: Receive) -> None:
        """Respond with an error; after the first byte of a response only closing the connection is left."""
        refusal = as_refusal(error, self.request_id)
        if self.started:
            raise ConnectionAbortedError from None
        await refusal.response(self.request_id)(self._scope, receive, self.send)


def as_refusal(error: Exception, request_id: str) -> Refusal:
    """Return the response to an exception of a route.

    Example:
        >>> as_refusal(VitrailError("top is 0"), "id").status
        400
    """
    if isinstance(error, Refusal):
        return error
    if isinstance(error, VitrailError):
        return Refusal(400, "bad_request", str(error))
    places = [f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in extract_tb(error.__traceback__)]
    entry: dict[str, Any] = {"request_id": request_id, "error": type(error).__name__, "at": places[::-1]}
    _LOG.error(json.dumps(entry))
    return Refusal(500, "internal", "The server failed on this request; its log has the request id.")
