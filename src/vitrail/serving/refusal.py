"""Error responses: an HTTP status, a code for programs, a message for people."""

import json
from math import ceil
from typing import Any

from starlette.responses import Response


class Refusal(Exception):
    """An error response.

    Args:
        status: HTTP status.
        code: short name of the reason, for programs and metrics.
        message: sentence for people; it repeats nothing of the payload.
        retry_after: seconds after which another try is likely to succeed.

    Example:
        >>> Refusal(429, "queue_full", "The queue is full.", retry_after=0.2).headers()
        {'Retry-After': '1'}
    """

    def __init__(self, status: int, code: str, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after

    def headers(self) -> dict[str, str]:
        """Return the headers of the response."""
        found = {} if self.retry_after is None else {"Retry-After": str(max(1, ceil(self.retry_after)))}
        if self.status == 401:
            found["WWW-Authenticate"] = "Bearer"
        return found

    def to_dict(self, request_id: str = "") -> dict[str, Any]:
        """Return the body of the response as plain values."""
        return {"error": {"code": self.code, "message": self.message, "request_id": request_id}}

    def body(self, request_id: str = "") -> bytes:
        """Return the body of the response as bytes, JSON in ASCII.

        Example:
            >>> Refusal(404, "not_found", "Not Found").body("id")
            b'{"error":{"code":"not_found","message":"Not Found","request_id":"id"}}'
        """
        return json.dumps(self.to_dict(request_id), separators=(",", ":")).encode()

    def response(self, request_id: str = "") -> Response:
        """Return the response."""
        return Response(self.body(request_id), self.status, self.headers(), "application/json")


class ClientGone(Exception):
    """The client closed its connection; a response has no reader."""


def too_large(what: str, limit: int, unit: str) -> Refusal:
    """Return the refusal of something above a limit.

    Example:
        >>> str(too_large("The body", 10, "bytes"))
        'The body is too large; the limit is 10 bytes.'
    """
    return Refusal(413, "too_large", f"{what} is too large; the limit is {limit:,} {unit}.")
