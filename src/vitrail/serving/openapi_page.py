"""The OpenAPI description, and a page of it that needs no script and no other server."""

from typing import Any

from fastapi import APIRouter, FastAPI
from jinja2 import Environment
from starlette.responses import Response

from vitrail.serving.predict_route import json_response

_PAGE = Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title><link rel="stylesheet" href="/static/docs.css"></head>
<body><main><h1>{{ title }}</h1><p>{{ description }}</p><p><a href="/openapi.json">openapi.json</a></p>
{% for path, methods in paths.items() %}{% for method, route in methods.items() %}
<section><h2><b>{{ method|upper }}</b> <code>{{ path }}</code></h2><p>{{ route.summary }}. {{ route.description }}</p>
{% for kind, body in route.get("requestBody", {}).get("content", {}).items() %}
<h3><code>{{ kind }}</code></h3>
{% if body.schema.properties %}<table><tr><th>field</th><th>type</th><th></th></tr>
{% for name, field in body.schema.properties.items() %}<tr><td><code>{{ name }}</code></td><td>{{ field.type }}</td>
<td>{{ field.description or "" }}</td></tr>{% endfor %}</table>{% endif %}
{% endfor %}</section>
{% endfor %}{% endfor %}
</main></body></html>
""")


def openapi_router(app: FastAPI) -> APIRouter:
    """Return the routes of `/openapi.json` and `/docs`."""
    router = APIRouter()

    @router.get("/openapi.json", include_in_schema=False)
    async def description() -> Response:
        return json_response(app.openapi())

    @router.get("/docs", include_in_schema=False)
    async def page() -> Response:
        return Response(render_page(app.openapi()), media_type="text/html; charset=utf-8")

    return router


def render_page(description: dict[str, Any]) -> str:
    """Return an OpenAPI description as HTML."""
    info = description["info"]
    return _PAGE.render(title=info["title"], description=info.get("description", ""), paths=description["paths"])
