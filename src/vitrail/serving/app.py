"""The application: routes, and the layers around them."""

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

import vitrail
from vitrail.serving import attention, card, health, predict_route, runs, stream, trace_route, view
from vitrail.serving.access import AccessRules
from vitrail.serving.guard import Guard
from vitrail.serving.openapi_page import openapi_router
from vitrail.serving.refusal import Refusal
from vitrail.serving.service import Service
from vitrail.serving.static_files import static_router


def create_app(service: Service, rules: AccessRules) -> FastAPI:
    """Return the application of a service.

    Args:
        service: models and their queues; `await service.start()` prepares them.
        rules: access rules.
    """
    app = FastAPI(
        title="Vitrail",
        version=vitrail.__version__,
        description="Predictions of models of the Transformer series.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        exception_handlers={HTTPException: _http_error},
    )
    app.state.service, app.state.traces = service, trace_route.PageStore()
    app.include_router(predict_route.router)
    for routes in (attention, card, view, stream, trace_route, runs, health):
        app.include_router(routes.router)
    app.include_router(static_router())
    app.include_router(openapi_router(app))
    app.add_middleware(Guard, service=service, rules=rules)
    return app


async def _http_error(request: Request, error: Exception) -> Response:
    """Return errors of the router (404, 405) in the form of all others."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method"}.get(error.status_code, "http")
    refusal = Refusal(error.status_code, code, str(error.detail))
    response = refusal.response(request.scope.get("vitrail.request_id", ""))
    response.headers.update(error.headers or {})
    return response
