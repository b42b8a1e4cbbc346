"""Refusals of a full queue before HTTP is parsed: ten times as many requests as a model can compute cost it little.

A refusal on the usual way (HTTP, a task, routes, a response, HTTP) takes longer than many a model needs for its share
of a batch. A request that is plainly one for a full queue is answered from its first bytes with the same response, and
its body is dropped as it arrives. Whatever is unusual in it goes the usual way.
"""

import re
from time import monotonic
from typing import NamedTuple

from vitrail.serving.access import AccessRules
from vitrail.serving.guard import SECURITY_HEADERS, Answered, record, request_id_of
from vitrail.serving.refusal import Refusal
from vitrail.serving.service import Service

_ROUTE = "/v1/models/{name}/predict"
_START = re.compile(rb"POST ((/v1/models/([A-Za-z0-9._-]{1,64})/predict)(?:\?([\x21-\x7e]*+))?) HTTP/1\.1\r\n")
_LINES = re.compile(rb"(?:[A-Za-z0-9-]++:[\x20-\x7e]*+\r\n)+")
_OTHER = frozenset([b"transfer-encoding", b"expect", b"upgrade"])
"""Headers that change how a request is read."""
_SHORT = 10
"""Most digits of a length that is read here."""
_SECURITY = "".join(f"{name}: {value}\r\n" for name, value in SECURITY_HEADERS.items())


class EarlyAnswer(NamedTuple):
    """A response, and how many bytes of the request's body are still to come."""

    response: bytes
    unread: int


class EarlyRefusals:
    """Responses to requests for full queues, from the bytes of the request.

    Args:
        service: models and queues.
        rules: access rules; who breaks one is refused on the usual way.
    """

    def __init__(self, service: Service, rules: AccessRules):
        self.service, self.rules = service, rules

    def answer(self, data: bytes, client: object, dates: list[tuple[bytes, bytes]]) -> EarlyAnswer | None:
        """Return the response to a request, or None if it goes the usual way.

        Args:
            data: the first bytes that arrived of a request.
            client: address of the client, for the log.
            dates: headers that the server adds to all responses.
        """
        began, start = monotonic(), _START.match(data)
        refusal = None if start is None else self.service.refusal_now(start[3].decode())
        if start is None or refusal is None:
            return None
        end = data.find(b"\r\n\r\n", start.end()) + 2
        if end < 2 or _LINES.fullmatch(data, start.end(), end) is None:
            return None
        headers = [_pair(line) for line in data[start.end() : end - 2].split(b"\r\n")]
        values = dict(headers)
        unread = _length(values) - (len(data) - end - 2)
        if len(values) < len(headers) or not _OTHER.isdisjoint(values) or unread < 0:
            return None
        if b"host" not in values or values.get(b"connection", b"keep-alive").lower() != b"keep-alive":
            return None
        scope = {"method": "POST", "path": start[2].decode(), "raw_path": start[2], "headers": headers}
        try:
            self.rules.check({**scope, "query_string": start[4] or b""})
        except Refusal:
            return None
        request_id = request_id_of(headers)
        body, name = refusal.body(request_id), start[3].decode()
        self.service.count_refusal(name, refusal)
        answered = Answered(_ROUTE, name, refusal.status, request_id, began, len(body))
        record(self.service.metrics, {**scope, "client": client}, answered)
        return EarlyAnswer(_head(refusal, request_id, len(body), dates) + body, unread)


def _pair(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(b" ")


def _length(values: dict[bytes, bytes]) -> int:
    """Return the length of the body, below any that has arrived if it is not given plainly."""
    given = values.get(b"content-length", b"")
    return int(given) if given.isdigit() and len(given) <= _SHORT else -1


def _head(refusal: Refusal, request_id: str, size: int, dates: list[tuple[bytes, bytes]]) -> bytes:
    dated = "".join(f"{name.decode()}: {value.decode()}\r\n" for name, value in dates)
    own = "".join(f"{name.lower()}: {value}\r\n" for name, value in refusal.headers().items())
    head = f"HTTP/1.1 429 Too Many Requests\r\n{dated}{own}content-length: {size}\r\n"
    return f"{head}content-type: application/json\r\n{_SECURITY}x-request-id: {request_id}\r\n\r\n".encode()
