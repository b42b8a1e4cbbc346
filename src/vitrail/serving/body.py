"""Reading of request bodies, with limits of size, time and memory."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request

from vitrail.serving.budget import MemoryBudget
from vitrail.serving.limits import Limits
from vitrail.serving.refusal import ClientGone, Refusal, too_large

HELD = "vitrail.held"
"""Key of the scope: bytes that the request holds. They are given back once it is answered."""


async def read_body(request: Request, limits: Limits, budget: MemoryBudget) -> bytes:
    """Return the body; its bytes count as held until the request is answered.

    Raises:
        Refusal: it is too large (413), compressed (415), or did not arrive in time (408).
        ClientGone: the connection was closed.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "media_type", "Compressed bodies are not read; send it without Content-Encoding.")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limits.body:
        raise too_large("The body", limits.body, "bytes")
    body, scope = bytearray(), request.scope
    try:
        async with asyncio.timeout(limits.timeout):
            async for chunk in _chunks(request):
                if len(body) + len(chunk) > limits.body:
                    raise too_large("The body", limits.body, "bytes")
                budget.take(len(chunk))
                scope[HELD] = scope.get(HELD, 0) + len(chunk)
                body += chunk
    except TimeoutError:
        raise Refusal(408, "body_timeout", f"The body did not arrive in {limits.timeout:g} seconds.") from None
    return bytes(body)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


async def disconnected(request: Request) -> None:
    """Return once the client has closed its connection; call it after the whole body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
