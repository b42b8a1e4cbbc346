"""Health and metrics."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from vitrail.serving.metrics import CONTENT_TYPE
from vitrail.serving.predict_route import json_response
from vitrail.serving.service import Service

router = APIRouter()
_LIVES = 3
"""A batch that runs for so many request timeouts will not end: the process should be started again."""


@router.get("/livez", summary="Whether the process works")
async def livez(request: Request) -> Response:
    """Return 200, or 503 if a worker has hung for so long that only a restart helps."""
    service: Service = request.app.state.service
    stuck = service.stuck(_LIVES * service.limits.timeout)
    return json_response({"status": "stuck" if stuck else "live"}, 503 if stuck else 200)


@router.get("/readyz", summary="Whether requests are accepted")
async def readyz(request: Request) -> Response:
    """Return 200 if all models are optimized and warm, and the server is not draining."""
    service: Service = request.app.state.service
    return json_response({"status": service.status}, 200 if service.status == "ready" else 503)


@router.get("/metrics", summary="Metrics in Prometheus format")
async def metrics(request: Request) -> Response:
    """Return counters, histograms and gauges of the server and its models."""
    service: Service = request.app.state.service
    service.metrics.held.set(service.budget.used)
    return Response(service.metrics.text(), media_type=CONTENT_TYPE)
