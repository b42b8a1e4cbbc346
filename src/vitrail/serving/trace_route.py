"""Routes of traces: one input walked through a model, as a page that is kept in memory for a while."""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from vitrail.serving.attention import read_one_image
from vitrail.serving.predict_route import json_response
from vitrail.serving.refusal import Refusal
from vitrail.serving.runs import report_policy
from vitrail.serving.served_model import ServedModel
from vitrail.serving.service import Service
from vitrail.serving.upload import Upload
from vitrail.trace.frame import ModelTrace

router = APIRouter()

_MOST_PAGES, _MOST_BYTES = 8, 128 << 20


class PageStore:
    """The latest pages, by random names: at most a few, and a bounded number of bytes.

    Example:
        >>> store = PageStore()
        >>> store.get(store.keep(b"page")), store.get("other")
        (b'page', None)
    """

    def __init__(self) -> None:
        self._pages: OrderedDict[str, bytes] = OrderedDict()

    def keep(self, page: bytes) -> str:
        """Keep a page, drop the oldest ones if there are too many, and return its name."""
        name = secrets.token_urlsafe(16)
        self._pages[name] = page
        while len(self._pages) > _MOST_PAGES or sum(map(len, self._pages.values())) > _MOST_BYTES:
            self._pages.popitem(last=False)
        return name

    def get(self, name: str) -> bytes | None:
        """Return a page, if it is still kept."""
        return self._pages.get(name)


@router.post("/v1/models/{name}/trace", summary="Trace an input through the model")
async def trace(name: str, request: Request) -> Response:
    """Return the address of a page with each step of an image or text through the plain model."""
    from vitrail.trace.page import render

    service: Service = request.app.state.service
    model = service.find(name)
    with service.request(model):
        upload = await service.upload(request, model)
        if not model.traceable:
            raise Refusal(400, "no_trace", model.without_layers or f"{name} takes no images or texts to trace.")
        if not upload.single or upload.options:
            raise Refusal(400, "bad_request", "A trace is of one image or text, without options.")
        outcome = await service.call(model, await _tracer(service, model, upload), request)
        page = await service.in_pool(lambda: render(outcome.value).encode())
        return json_response({"page": f"/runs/traces/{request.app.state.traces.keep(page)}"})


async def _tracer(service: Service, model: ServedModel, upload: Upload) -> Callable[[], ModelTrace]:
    """Return the function that makes the trace, its input decoded."""
    from vitrail.trace.image_trace import trace_image
    from vitrail.trace.text_trace import trace_text

    if model.kind == "text":
        line: Any = model.item(upload.inputs[0], 0, False)
        return lambda: trace_text(model.model, line.text)
    image = await read_one_image(service, model, upload)
    labels = tuple(getattr(model.model, "labels", None) or ())
    return lambda: trace_image(model.model, image, labels)


@router.get("/runs/traces/{name}", summary="Page of a trace")
async def trace_page(name: str, request: Request) -> Response:
    """Return the page of a trace, in a sandbox that can load nothing."""
    page = request.app.state.traces.get(name)
    if page is None:
        raise Refusal(404, "not_found", "This trace is not kept any more; make it again.")
    headers = {"Content-Security-Policy": report_policy(page)}
    return Response(page, media_type="text/html; charset=utf-8", headers=headers)
