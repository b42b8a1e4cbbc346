"""Every limit, one below, at, and one above it."""

import base64
from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")
from harness import Harness, classifier, form, png

from vitrail.serving.limits import Limits

ROUTE = "/v1/models/pets/predict"
SIZE = len(png())
LIMITS = Limits(
    body=SIZE + 400,
    pixels=1200,
    drawn_pixels=900,
    inputs=3,
    header=300,
    headers=900,
    target=100,
    timeout=5,
    memory=2_000_000,
)


@pytest.fixture(scope="module")
def server() -> Iterator[Harness]:
    with Harness([classifier(limits=LIMITS)]) as harness:
        yield harness


def padded(size: int) -> bytes:
    return png() + b"\0" * (size - SIZE)


@pytest.mark.parametrize(("over", "status"), [(-1, 200), (0, 200), (1, 413)])
@pytest.mark.parametrize("declared", [True, False])
def test_bytes_of_a_body(server: Harness, over: int, status: int, declared: bool) -> None:
    body = padded(LIMITS.body + over)
    headers = {"content-type": "image/png"} | ({"content-length": str(len(body))} if declared else {})
    reply = server.request("POST", ROUTE, [body[:500], body[500:]], headers)
    assert reply.status == status, reply.body


@pytest.mark.parametrize(("size", "status"), [((40, 29), 200), ((40, 30), 200), ((1201, 1), 422)])
def test_pixels_of_an_image(server: Harness, size: tuple[int, int], status: int) -> None:
    assert server.post(ROUTE, png(size=size)[: LIMITS.body], "image/png").status == status


@pytest.mark.parametrize(("size", "status"), [((29, 31), 200), ((30, 30), 200), ((53, 17), 422)])
def test_pixels_of_a_drawing(server: Harness, size: tuple[int, int], status: int) -> None:
    assert server.post(f"{ROUTE}?draw=1", png(size=size), "image/png").status == status


@pytest.mark.parametrize(("count", "status"), [(2, 200), (3, 200), (4, 413)])
def test_inputs_of_a_request(server: Harness, count: int, status: int) -> None:
    small = png(size=(4, 4))
    text = base64.b64encode(small).decode()
    assert server.post(ROUTE, {"inputs": [text] * count}).status == status
    assert server.post(ROUTE, *form(*[("input", small, True)] * count)).status == status


@pytest.mark.parametrize(("count", "status"), [(7, 400), (8, 400), (12, 413)])
def test_parts_of_a_form(server: Harness, count: int, status: int) -> None:
    assert server.post(ROUTE, *form(*[("x", b"", False)] * count)).status == status


@pytest.mark.parametrize(("over", "status"), [(-1, 200), (0, 200), (1, 431)])
def test_bytes_of_a_header(server: Harness, over: int, status: int) -> None:
    assert server.get("/livez", x_long="a" * (LIMITS.header - len("x-long") + over)).status == status


@pytest.mark.parametrize(("over", "status"), [(-1, 200), (0, 200), (1, 431)])
def test_bytes_of_all_headers(server: Harness, over: int, status: int) -> None:
    rest = LIMITS.headers - len("host127.0.0.1") - 3 * 200 + over
    headers = dict.fromkeys("abc", "a" * (200 - 1)) | {"d": "a" * (rest - 1)}
    assert server.request("GET", "/livez", headers=headers).status == status


@pytest.mark.parametrize(("over", "status"), [(-1, 200), (0, 200), (1, 414)])
def test_bytes_of_path_and_query(server: Harness, over: int, status: int) -> None:
    assert server.get("/livez?" + "a" * (LIMITS.target - len("/livez?") + over)).status == status


@pytest.mark.parametrize(("over", "status"), [(-1, 400), (0, 400), (1, 431)])
def test_bytes_of_the_headers_of_a_part(server: Harness, over: int, status: int) -> None:
    fixed = len("Content-Dispositionform-data") + len("X")
    name = b"a" * (LIMITS.header - fixed + over)
    head = b"Content-Disposition: form-data\r\nX: " + name
    body = b"--b\r\n" + head + b"\r\n\r\n\r\n--b--\r\n"
    assert server.post(ROUTE, body, "multipart/form-data; boundary=b").status == status


def test_text_of_a_limit() -> None:
    from vitrail.errors import DataError
    from vitrail.serving.inputs import make_input

    limits = Limits(text=5)
    assert [make_input("text", "a" * n, limits).text for n in (4, 5)] == ["aaaa", "aaaaa"]
    with pytest.raises(DataError, match="limit is 5"):
        make_input("text", "a" * 6, limits)


def test_memory_of_all_requests(server: Harness) -> None:
    budget, body = server.service.budget, png()
    loaded = 3 * 32 * 32  # the decoded input
    for over, status in ((-1, 200), (0, 200), (1, 503)):
        budget.take(taken := budget.limit - len(body) - loaded + over)
        try:
            reply = server.post(ROUTE, body, "image/png")
        finally:
            budget.give(taken)
        assert reply.status == status, reply.body
    assert budget.used == 0 and reply.headers["retry-after"] == "1"


def test_time_of_a_body(server: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.service, "limits", Limits(timeout=0.05))
    reply = server.request("POST", ROUTE, [b"a"], {"content-type": "image/png"}, stalls=True)
    assert (reply.status, reply.code) == (408, "body_timeout")


def test_compressed_bodies_are_refused(server: Harness) -> None:
    assert server.post(ROUTE, png(), "image/png", content_encoding="gzip").status == 415
