"""Routes of the page without a browser: attention, views, streams, runs with their policy, static files."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
from live import LiveServer, image_file

from vitrail.explain.served_heat import encode_image_heat
from vitrail.explain.served_maps import decode_maps, encode_image_maps
from vitrail.serving.card import find_run
from vitrail.serving.runs import report_policy
from vitrail.tasks.image_sources import find_images

REPORT = b"<html><head><meta http-equiv='Content-Security-Policy' content=\"script-src 'sha256-%s='\"></head><body>" % (
    b"A" * 43
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, summary in (("classify/first", '{"top1": 0.9}'), ("broken", "{"), ("going", "")):
        run = folder / name
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("task: classify\nmodel: vit\n")
        (run / "summary.json").write_text(summary)
    (folder / "classify" / "first" / "report.html").write_bytes(REPORT)
    (folder / "secret.html").write_text("secret")
    (folder / "going" / "report.html").symlink_to(folder / "secret.html")
    return folder


@pytest.fixture(scope="module")
def server(runs: Path) -> Iterator[LiveServer]:
    with LiveServer(["pets", "pools", "clouds", "writer"], runs=runs) as running:
        yield running


def ask(server: LiveServer, method: str, path: str, body: bytes | dict | None = None, kind: str = "image/png") -> Any:
    """Send a request; return status, headers and body."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    if isinstance(body, dict):
        body, kind = json.dumps(body).encode(), "application/json"
    connection.request(method, path, body, {} if body is None else {"Content-Type": kind})
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def test_attention_of_the_route_is_that_of_the_library(server: LiveServer, tmp_path: Path) -> None:
    path = image_file(tmp_path)
    status, _, content = ask(server, "POST", "/v1/models/pets/attention", path.read_bytes())
    model = server.service.models["pets"].model
    assert status == 200 and content == encode_image_maps(model, find_images(path)[0].read())
    status, _, content = ask(server, "POST", "/v1/models/pets/attention?layer=%221%22&query=3", path.read_bytes())
    assert status == 200 and decode_maps(content).header["sent"][0]["shape"] == [1, 3, 1, 65]


@pytest.mark.parametrize(
    ("model", "query", "status", "words"),
    [
        ("pools", "", 400, "no attention maps"),
        ("clouds", "", 400, "no attention maps"),
        ("pets", "?layer=%229%22", 400, "no block 9"),
        ("pets", "?query=%22a%22", 400, "must be of type int"),
        ("pets", "?layer=%221%22&query=999", 400, "no token 999"),
        ("pets", "?head=1", 400, "options of attention maps"),
    ],
)
def test_inputs_without_maps_are_refused(
    server: LiveServer, tmp_path: Path, model: str, query: str, status: int, words: str
) -> None:
    kind = "application/octet-stream"
    found, _, content = ask(
        server, "POST", f"/v1/models/{model}/attention{query}", image_file(tmp_path).read_bytes(), kind
    )
    assert found == status and words in json.loads(content)["error"]["message"]


def test_an_unreadable_image_has_no_attention(server: LiveServer) -> None:
    status, _, content = ask(server, "POST", "/v1/models/pets/attention", b"GIF89a nothing")
    assert status == 422 and json.loads(content)["error"]["code"] == "unreadable_input"


def test_heatmaps_of_the_route_are_those_of_the_library(server: LiveServer, tmp_path: Path) -> None:
    path = image_file(tmp_path)
    image = find_images(path)[0].read()
    for model, kind in (("pets", "rollout"), ("pools", "gradcam")):
        status, _, content = ask(server, "POST", f"/v1/models/{model}/heatmap?kind={kind}", path.read_bytes())
        assert status == 200
        assert json.loads(content) == encode_image_heat(server.service.models[model].model, image, kind)
    for query, words in (
        ("", "rollout or gradcam"),
        ("?kind=other", "rollout or gradcam"),
        ("?kind=rollout&a=1", "only"),
    ):
        status, _, content = ask(server, "POST", f"/v1/models/pets/heatmap{query}", path.read_bytes())
        assert status == 400 and words in json.loads(content)["error"]["message"]
    assert ask(server, "POST", "/v1/models/pools/heatmap?kind=rollout", path.read_bytes())[0] == 400
    assert ask(server, "POST", "/v1/models/pets/heatmap?kind=rollout", b"GIF89a nothing")[0] == 422


def test_a_card_has_cost_licence_and_published_figures(server: LiveServer, tmp_path: Path) -> None:
    status, _, content = ask(server, "GET", "/v1/models/pets/card")
    found = json.loads(content)
    assert status == 200 and found["parameters"] == 17_331 and found["multiply_adds"] == 1_377_960
    assert found["licence"] is None and found["published"]["top1"] == 75.45
    assert ask(server, "GET", "/v1/models/none/card")[0] == 404
    assert "cannot be counted" in json.loads(ask(server, "GET", "/v1/models/clouds/card")[2])["uncounted"]
    (tmp_path / "run" / "weights" / "best").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("task: classify\nmodel: vit\n")
    (tmp_path / "run" / "summary.json").write_text('{"top1": 0.5, "epochs": 3, "seed": 1}')
    assert find_run(tmp_path / "run") == find_run(tmp_path / "run" / "weights" / "best") == tmp_path / "run"
    assert find_run(tmp_path) is None
    served = server.service.models["pets"]
    served.run = tmp_path / "run"
    run = json.loads(ask(server, "GET", "/v1/models/pets/card")[2])["run"]
    served.run = None
    assert run["name"] == "run" and run["epochs"] == 3 and run["metrics"] == {"Top-1": "50.0%"}


def test_a_text_has_a_trace_too(server: LiveServer) -> None:
    status, _, content = ask(server, "POST", "/v1/models/writer/trace", {"input": "a warm film"})
    assert status == 200 and b"Vitrail trace" in ask(server, "GET", json.loads(content)["page"])[2]
    assert ask(server, "POST", "/v1/models/clouds/trace", b"1 2 3\n", "application/octet-stream")[0] == 400


def test_a_view_has_the_prediction_and_its_drawing(server: LiveServer, tmp_path: Path) -> None:
    points = "\n".join(" ".join(map(str, row)) for row in np.random.default_rng(0).normal(size=(99, 3)).round(4))
    status, _, content = ask(server, "POST", "/v1/models/clouds/view", points.encode(), "application/octet-stream")
    found = json.loads(content)
    assert status == 200 and found["result"]["label"] in ("lamp", "cone")
    assert len(found["view"]["points"]) == 3 * found["result"]["points"] and found["timing"]["compute_ms"] > 0
    status, _, content = ask(server, "POST", "/v1/models/pets/view", image_file(tmp_path).read_bytes())
    assert status == 200 and json.loads(content)["view"] == {}


def test_a_stream_is_the_prediction_in_pieces(server: LiveServer) -> None:
    body = {"input": "a warm ", "options": {"tokens": 9, "seed": 2}}
    status, headers, content = ask(server, "POST", "/v1/models/writer/stream", body)
    events = [json.loads(line.removeprefix("data: ")) for line in content.decode().split("\n\n") if line]
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    assert events[-1]["done"] and events[-1]["pieces"] == len(events) - 1
    _, _, whole = ask(server, "POST", "/v1/models/writer/predict", body)
    assert "".join(event["text"] for event in events[:-1]) == json.loads(whole)["result"]["continuation"]
    assert all(0 < event["probability"] <= 1 and len(event["alternatives"]) == 5 for event in events[:-1])
    assert ask(server, "POST", "/v1/models/pets/stream", b"x")[0] == 400


def test_a_trace_is_a_page_in_a_sandbox(server: LiveServer, tmp_path: Path) -> None:
    status, _, content = ask(server, "POST", "/v1/models/pets/trace", image_file(tmp_path).read_bytes())
    assert status == 200
    status, headers, page = ask(server, "GET", json.loads(content)["page"])
    assert status == 200 and b"Vitrail trace" in page
    assert "script-src 'sha256-" in headers["content-security-policy"]
    assert ask(server, "GET", "/runs/traces/other")[0] == 404
    assert ask(server, "POST", "/v1/models/pets/trace", b"no image")[0] == 422


def test_models_list_their_panels(server: LiveServer) -> None:
    found = {one["name"]: one for one in json.loads(ask(server, "GET", "/v1/models")[2])["models"]}
    assert {name: (one["attention"], one["streams"]) for name, one in found.items()} == {
        "pets": (True, False),
        "pools": (False, False),
        "clouds": (False, False),
        "writer": (False, True),
    }


def test_runs_are_listed_and_reports_are_in_a_sandbox(server: LiveServer) -> None:
    listed = {run["name"]: run for run in json.loads(ask(server, "GET", "/v1/runs")[2])["runs"]}
    assert set(listed) == {"classify/first", "broken", "going"}
    assert listed["classify/first"]["metrics"] == {"Top-1": "90.0%"} and listed["broken"]["metrics"] == {}
    status, headers, content = ask(server, "GET", listed["classify/first"]["report"])
    policy = headers["content-security-policy"]
    assert status == 200 and content == REPORT and f"script-src 'sha256-{'A' * 43}='" in policy
    assert policy.startswith("default-src 'none'") and policy.endswith("sandbox allow-scripts")
    assert "script-src" not in report_policy(REPORT.replace(b"</head>", b""))  # a policy counts in the head alone


@pytest.mark.parametrize(
    "name", ["going", "secret.html", "../secret", "%2e%2e/secret", "classify%2f..%2f..%2fsecret", "classify", "nothing"]
)
def test_a_report_is_found_by_its_name_alone(server: LiveServer, name: str) -> None:
    assert ask(server, "GET", f"/runs/{name}/report")[0] == 404


def test_every_file_of_the_page_has_its_type_and_the_policy(server: LiveServer) -> None:
    page = Path(__file__).parents[2] / "src" / "vitrail" / "serving" / "page"
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
    for path in sorted(page.iterdir()):
        status, headers, content = ask(server, "GET", "/" if path.name == "index.html" else f"/static/{path.name}")
        assert status == 200 and content == path.read_bytes() and headers["content-type"].startswith(types[path.suffix])
        policy = headers["content-security-policy"]
        assert "unsafe" not in policy and "script-src 'self'" in policy and "style-src 'self'" in policy
        assert headers["x-content-type-options"] == "nosniff"


def test_without_a_folder_of_runs_there_is_no_list() -> None:
    with LiveServer(["pools"]) as server:
        assert json.loads(ask(server, "GET", "/v1/runs")[2]) == {"runs": None}
        assert ask(server, "GET", "/runs/first/report")[0] == 404
