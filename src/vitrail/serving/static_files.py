"""Static files of the server: read at start, served from memory, so that no path of a request reaches the disk."""

import hashlib
from importlib.resources import files
from typing import NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from vitrail.serving.refusal import Refusal

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
FOLDERS = ("static", "page")
INDEX = "index.html"


class StaticFile(NamedTuple):
    """Content, media type, and hash of a file."""

    content: bytes
    kind: str
    tag: str


def read_static_files() -> dict[str, StaticFile]:
    """Return the files of the package by name.

    Example:
        >>> read_static_files()["page.css"].kind
        'text/css; charset=utf-8'
    """
    found = {}
    for folder in FOLDERS:
        place = files("vitrail.serving").joinpath(folder)
        for file in place.iterdir() if place.is_dir() else ():
            suffix = "." + file.name.rpartition(".")[2]
            if suffix in TYPES:
                content = file.read_bytes()
                found[file.name] = StaticFile(content, TYPES[suffix], f'"{hashlib.sha256(content).hexdigest()[:16]}"')
    return found


def static_router() -> APIRouter:
    """Return the routes of `/` and `/static/NAME`."""
    router, known = APIRouter(), read_static_files()

    @router.get("/", summary="Web page", include_in_schema=False)
    async def index(request: Request) -> Response:
        return _file(known[INDEX], request) if INDEX in known else RedirectResponse("/docs", 307)

    @router.get("/static/{name}", summary="File of the web page", include_in_schema=False)
    async def file(name: str, request: Request) -> Response:
        if name not in known:
            raise Refusal(404, "not_found", "There is no such file.")
        return _file(known[name], request)

    return router


def _file(file: StaticFile, request: Request) -> Response:
    headers = {"ETag": file.tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.kind, headers=headers)
