"""Access: token, Host, Origin; and headers of every response."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")
from harness import Harness, classifier, png

from vitrail.errors import VitrailError
from vitrail.serving.access import OPEN_PATHS, access_rules, is_open
from vitrail.serving.limits import Limits

TOKEN = "0123456789abcdef"
ROUTE = "/v1/models/pets/predict"


@pytest.fixture(scope="module")
def server() -> Iterator[Harness]:
    with Harness([classifier()], token=TOKEN) as harness:
        yield harness


def all_routes(routes: Any) -> Iterator[tuple[str, str]]:
    """Yield path and method of all routes, those of included routers too."""
    for route in routes:
        if hasattr(route, "original_router"):
            yield from all_routes(route.original_router.routes)
        else:
            yield from ((route.path, method) for method in route.methods)


def test_every_route_needs_the_token_but_health_and_static_files(server: Harness) -> None:
    """S9: all routes of the application, by every method."""
    routes = list(all_routes(server.app.routes))
    assert len(routes) >= 10
    for path, method in routes:
        place = path.replace("{name}", "docs.css" if path.startswith("/static") else "pets")
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}):
            status = server.request(method, place, headers=headers).status
            assert (status == 401) == (not is_open(place)), (method, place, status)
    for path in ("/nowhere", "/v1", "/static/../metrics", "//livez", "/metrics/", "/runs/x"):
        assert server.get(path).status == 401
    assert {"/livez", "/readyz", "/", "/docs", "/openapi.json", "/favicon.ico"} == OPEN_PATHS


def test_the_token_opens(server: Harness) -> None:
    assert server.get("/metrics", authorization=f"Bearer {TOKEN}").status == 200
    assert server.get("/metrics", authorization=f"bearer {TOKEN}").status == 200
    reply = server.get("/metrics", authorization=f"Bearer {TOKEN}x")
    assert reply.status == 401 and reply.headers["www-authenticate"] == "Bearer"


def test_a_session_cookie_reads_reports_only(server: Harness) -> None:
    server.service.sessions.add("s3cret")
    good = {"cookie": "a=b; vitrail_session=s3cret"}
    assert server.get("/runs/x", **good).status == 404
    assert server.get("/metrics", **good).status == 401
    assert server.request("POST", "/runs/x", headers=good).status == 401
    assert server.get("/runs/x", cookie="vitrail_session=").status == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "localhost:x", "[::1", "LOCALHOST.", "10.0.0.1"]
)
def test_other_host_names_are_refused(server: Harness, host: str) -> None:
    reply = server.request("GET", "/livez", headers={"host": host})
    assert reply.status == (200 if host == "[::1" else 421)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"])
def test_loopback_names_are_accepted(server: Harness, host: str) -> None:
    assert server.request("GET", "/livez", headers={"host": host}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_pages_of_other_sites_cannot_post(server: Harness, headers: dict[str, str]) -> None:
    known = {"authorization": f"Bearer {TOKEN}", "content-type": "image/png"}
    assert server.request("POST", ROUTE, [png()], {**known, **headers}).status == 403
    own = {"origin": "http://127.0.0.1", "sec-fetch-site": "same-origin"}
    assert server.request("POST", ROUTE, [png()], {**known, **own}).status == 200


def test_other_addresses_than_loopback_need_a_token() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org"):
        with pytest.raises(VitrailError, match="needs a token"):
            access_rules(host, None, Limits(), set())
        assert access_rules(host, TOKEN, Limits(), set()).hosts is None
    for token in ("short", TOKEN + "\n", "ä" * 20):
        with pytest.raises(VitrailError, match="16 characters"):
            access_rules("127.0.0.1", token, Limits(), set())


def test_headers_of_every_response(server: Harness) -> None:
    for reply in (server.get("/livez"), server.get("/nowhere"), server.get("/docs"), server.get("/static/docs.css")):
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert "unsafe" not in reply.headers["content-security-policy"]
        assert (
            reply.headers["x-content-type-options"] == "nosniff" and reply.headers["referrer-policy"] == "no-referrer"
        )
        assert reply.headers["x-request-id"]


TRAVERSALS = [
    "..",
    "%2e%2e",
    "..%2f",
    "%2e%2e%2f",
    "..%5c",
    "....//",
    "%252e%252e%252f",
    "..%c0%af",
    "/etc/passwd",
    "~root",
]


@pytest.mark.parametrize("tail", ["etc/passwd", "app.py", "../app.py", "__init__.py", "%00docs.css"])
def test_no_path_reaches_the_disk(server: Harness, tail: str) -> None:
    """S10: 50 payloads."""
    for start in TRAVERSALS:
        reply = server.get(f"/static/{start}{tail}", authorization=f"Bearer {TOKEN}")
        assert reply.status in (404, 405) and b"root:" not in reply.body and b"import" not in reply.body


def test_ids_and_log_without_payload(server: Harness, caplog: pytest.LogCaptureFixture) -> None:
    """S11: the id of a request is in its answer and its log line; payload, token and names of the client are not."""
    with caplog.at_level(logging.INFO, "vitrail.serving"):
        known = {"authorization": f"Bearer {TOKEN}"}
        reply = server.post(ROUTE, {"input": "c2VjcmV0 cGF5bG9hZA=="}, x_request_id="abc-1", **known)
        assert reply.status == 422 and reply.headers["x-request-id"] == "abc-1"
        assert reply.json()["error"]["request_id"] == "abc-1"
        strange = server.get("/v1/models/%0d%0aInjected", x_request_id="a b\r\nc", **known)
        assert strange.headers["x-request-id"] not in ("", "a b\r\nc")
    entries = [json.loads(record.message) for record in caplog.records if record.message.startswith("{")]
    assert entries[0] | {"ms": 0, "bytes": 0} == {
        "request_id": "abc-1", "client": "127.0.0.1", "method": "POST", "route": "/v1/models/{name}/predict",
        "model": "pets", "status": 422, "ms": 0, "bytes": 0,
    }  # fmt: skip
    assert not any(word in caplog.text for word in ("c2Vjc", TOKEN, "Injected"))
