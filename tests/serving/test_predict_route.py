"""Predictions over HTTP equal offline ones, in every form of a request."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")
from harness import Harness, classifier, form, png

from vitrail.inference.predict import predict

ROUTE = "/v1/models/pets/predict"


@pytest.fixture(scope="module")
def server() -> Iterator[Harness]:
    with Harness([classifier(), classifier("others", seed=1)]) as harness:
        yield harness


@pytest.fixture(scope="module")
def expected(server: Harness, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("images")
    for seed in range(3):
        (folder / f"{seed}.png").write_bytes(png(seed))
    found = predict(server.service.models["pets"].model, folder, top=3, optimize=False)
    return [{name: value for name, value in each.to_dict().items() if name != "path"} for each in found]


def same(result: dict[str, Any], wanted: dict[str, Any]) -> bool:
    pairs = zip(result["top"], wanted["top"], strict=True)
    return result["label"] == wanted["label"] and all(
        a["label"] == b["label"] and abs(a["probability"] - b["probability"]) < 1e-5 for a, b in pairs
    )


def test_json_multipart_and_raw_images_equal_offline_predict(server: Harness, expected: list[dict[str, Any]]) -> None:
    text = base64.b64encode(png(1)).decode()
    body, kind = form(("file", png(1), True), ("options", b'{"top": 3}', False))
    replies = [
        server.post(ROUTE, {"input": text}),
        server.post(ROUTE, {"input": f"data:image/png;base64,{text}", "options": {"top": 3}}),
        server.post(ROUTE, body, kind),
        server.post(ROUTE, png(1), "image/png"),
        server.post(f"{ROUTE}?top=3", png(1), "application/octet-stream"),
    ]
    assert [reply.status for reply in replies] == [200] * 5, replies[0].body
    assert all(same(reply.json()["result"], expected[1]) for reply in replies)
    assert set(replies[0].json()["timing"]) == {"load_ms", "queue_ms", "compute_ms", "batch"}


def test_a_batch_keeps_its_order_and_reports_bad_inputs_by_index(
    server: Harness, expected: list[dict[str, Any]]
) -> None:
    texts = [base64.b64encode(data).decode() for data in (png(0), b"no image", png(2))]
    answer = server.post(ROUTE, {"inputs": texts}).json()
    assert same(answer["results"][0], expected[0]) and same(answer["results"][2], expected[2])
    assert "format" in answer["results"][1]["error"]
    body, kind = form(*(("input", png(seed), True) for seed in range(3)))
    found = server.post(ROUTE, body, kind).json()["results"]
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))


def test_options_of_a_request_are_checked(server: Harness) -> None:
    text = base64.b64encode(png()).decode()
    assert len(server.post(ROUTE, {"input": text, "options": {"top": 1}}).json()["result"]["top"]) == 1
    for options in ({"top": 0}, {"top": 1.5}, {"top": True}, {"labels": "/etc/passwd"}, {"batch": 1}, [1]):
        reply = server.post(ROUTE, {"input": text, "options": options})
        assert (reply.status, reply.code) == (400, "bad_request"), options
    assert "passwd" not in reply.body.decode()


def test_models_in_one_process_are_independent(server: Harness) -> None:
    mine, other = (server.post(f"/v1/models/{name}/predict", png(), "image/png").json() for name in ("pets", "others"))
    assert mine["model"] == "pets" and other["model"] == "others"
    assert mine["result"]["probability"] != other["result"]["probability"]
    listed = server.get("/v1/models").json()
    assert [each["name"] for each in listed["models"]] == ["pets", "others"]
    assert listed["models"][0]["classes"] == ["cat", "dog", "fox"] and listed["models"][0]["ready"]
    assert listed["limits"]["body_bytes"] == 20_000_000
    assert server.get("/v1/models/pets").json()["options"]["top"]["maximum"] == 1000
    assert server.post("/v1/models/none/predict", {}).code == "unknown_model"


def test_a_drawing_is_encoded_anew_without_metadata(server: Harness) -> None:
    reply = server.post(f"{ROUTE}?draw=true", png(), "image/png")
    kind, _, data = reply.json()["result"]["drawing"].partition(",")
    assert kind == "data:image/jpeg;base64" and b"Exif" not in base64.b64decode(data)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"input": NaN}', "application/json", 400),
        (b'{"input": "a", "inputs": []}', "application/json", 400),
        (b'{"inputs": []}', "application/json", 400),
        (b'{"input": 3}', "application/json", 400),
        (b'{"input": "\\ud800"}', "application/json", 422),
        (b'{"input": "AAAA", "x": 1}', "application/json", 400),
        (b'{"input": "AAAA", "draw": "yes"}', "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"--b", "multipart/form-data; boundary=b", 400),
        (*form(("image", b"\xff", True)), 400),
        (b"--b", "multipart/form-data", 400),
        (b"a", "text/html", 415),
        (b"", "image/png", 422),
        (b"%PDF", "image/png", 422),
        (b"<svg/>", "image/svg+xml", 422),
    ],
)  # fmt: skip
def test_malformed_requests_are_the_clients_fault(server: Harness, body: bytes, kind: str, status: int) -> None:
    reply = server.post(ROUTE, body, kind)
    assert reply.status == status, reply.body
    assert set(reply.json()["error"]) == {"code", "message", "request_id"}


def test_description_and_page_of_the_routes(server: Harness) -> None:
    paths = server.get("/openapi.json").json()["paths"]
    assert {"/v1/models", "/v1/models/{name}/predict", "/livez", "/readyz", "/metrics"} <= set(paths)
    page = server.get("/docs").body.decode()
    assert "/v1/models/{name}/predict" in page and "http" not in page.replace("https", "") and "<script" not in page
    assert server.get("/static/docs.css").headers["content-type"].startswith("text/css")


def test_no_file_is_written(server: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    big = png(size=(900, 900))  # above the size at which a spooled file would go to disk
    body, kind = form(("input", big, True))
    assert len(body) > 1 << 20 and server.post(ROUTE, body, kind).status == 200
    assert list(tmp_path.iterdir()) == []
    assert server.service.budget.used == 0


def test_json_is_valid(server: Harness) -> None:
    json.loads(server.get("/v1/models").body, parse_constant=lambda name: pytest.fail(name))
