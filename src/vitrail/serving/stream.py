"""Route of streamed results: server-sent events, a JSON object each."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from time import perf_counter
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from vitrail.errors import DataError
from vitrail.serving.guard import as_refusal
from vitrail.serving.refusal import ClientGone, Refusal
from vitrail.serving.served_model import ServedModel
from vitrail.serving.service import Service

router = APIRouter()


@router.post("/v1/models/{name}/stream", summary="Stream a result piece by piece")
async def stream(name: str, request: Request) -> Response:
    """Return the pieces of one result as they come, see `Streamer.stream` of the task.

    The last event is `{"done": true, "pieces": n, "seconds": s}`, or `{"error": {...}}` after a failure. Closing the
    connection ends the work.
    """
    service: Service = request.app.state.service
    model = service.find(name)
    upload = await service.upload(request, model)
    if not model.streams:
        raise Refusal(400, "no_stream", f"{name} gives its result at once: use predict.")
    if not upload.single:
        raise Refusal(400, "bad_request", "A stream is of one input.")
    predictor: Any = model.find(upload.options)
    try:
        loaded = predictor.load(model.item(upload.inputs[0], 0, False))
    except DataError as error:
        raise Refusal(422, "unreadable_input", str(error)) from None
    events = _events(service, model, lambda: predictor.stream(loaded), request)
    return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _events(service: Service, model: ServedModel, function: Any, request: Request) -> AsyncIterator[str]:
    began, count = perf_counter(), 0
    try:
        with service.request(model):
            async with aclosing(service.stream(model, function, request)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    count += 1
                    yield _event(piece)
    except ClientGone:
        return
    except Exception as error:  # noqa: BLE001 - the status is sent already: the failure is the last event
        request_id = request.scope.get("vitrail.request_id", "")
        yield _event(as_refusal(error, request_id).to_dict(request_id))
        return
    yield _event({"done": True, "pieces": count, "seconds": round(perf_counter() - began, 3)})


def _event(values: dict[str, Any]) -> str:
    return f"data: {json.dumps(values, allow_nan=False)}\n\n"
