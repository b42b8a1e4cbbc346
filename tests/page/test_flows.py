"""Ways of giving an input, and the page around the panels, in a real browser."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
from browser import CAMERA, Visit, chromium
from live import LiveServer, image_file
from PIL import Image

from vitrail.serving.limits import Limits

pytestmark = pytest.mark.slow
TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(*CAMERA) as started:
        yield started


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(["pets", "birds", "clouds", "films"], limits=Limits(body=60_000)) as running:
        yield running


@pytest.fixture
def visit(browser: Any, server: LiveServer) -> Iterator[Visit]:
    with Visit(browser, server.url) as opened:
        yield opened


@pytest.mark.parametrize("target", ["body", "#results", "#model"])
def test_a_file_dropped_anywhere_is_taken(visit: Visit, tmp_path: Path, target: str) -> None:
    visit.open("pets").pending()
    visit.drop(target, image_file(tmp_path))
    assert visit.page.evaluate("[window.veiled, window.stayed]") == [True, True]
    visit.done()
    assert len(visit.texts(".bars .name")) == 3 and visit.page.locator("#veil").is_hidden()


def test_an_image_pasted_anywhere_is_taken(visit: Visit, tmp_path: Path) -> None:
    visit.open("pets").pending()
    visit.paste_file(image_file(tmp_path))
    visit.done()
    assert "pasted image" in visit.text("#preview") and visit.texts(".bars .name")


def test_a_text_pasted_outside_the_field_runs_and_inside_is_left_to_the_browser(visit: Visit) -> None:
    visit.open("films").pending()
    assert visit.paste_text("a warm film", "#text") and visit.page.locator(".bars").count() == 0
    assert not visit.paste_text("a cold film")
    visit.done()
    assert visit.page.input_value("#text") == "a cold film" and len(visit.texts(".bars .name")) == 2


def test_a_paste_without_an_image_gets_a_reason(visit: Visit) -> None:
    visit.open("pets").paste_text("just words")
    assert "neither an image" in visit.text("#problem-text")
    visit.page.click("#problem-close")
    assert visit.page.locator("#problem").is_hidden()


def test_a_photograph_of_the_camera(visit: Visit) -> None:
    visit.open("pets").pending()
    visit.page.click("#photograph")
    visit.page.click("#camera-take")
    visit.done()
    assert "photograph" in visit.text("#preview") and len(visit.texts(".bars .name")) == 3
    assert visit.page.evaluate("document.querySelector('#camera-view').srcObject") is None  # the camera is off
    assert visit.page.evaluate("document.activeElement.id") == "photograph"


@pytest.mark.parametrize(
    ("error", "words"),
    [("NotAllowedError", "refused"), ("NotFoundError", "no camera"), (None, "this machine or of https")],
)
def test_a_missing_camera_gets_a_reason_and_an_alternative(visit: Visit, error: str | None, words: str) -> None:
    visit.open("pets")
    visit.page.evaluate(
        """name => Object.defineProperty(navigator, "mediaDevices", {value: name === null ? undefined
             : {getUserMedia: () => Promise.reject(new DOMException("", name))}})""",
        error,
    )
    visit.page.click("#photograph")
    visit.page.wait_for_selector(f"#camera-note:has-text('{words}')")
    assert visit.page.locator("#camera-take").is_hidden()
    with visit.page.expect_file_chooser():
        visit.page.click("#camera-file")
    assert visit.page.locator("#camera").is_hidden()


@pytest.mark.parametrize(("model", "shown"), [("pets", ".bars"), ("clouds", "canvas.cloud"), ("films", "mark")])
def test_the_example_of_each_kind_of_input(visit: Visit, model: str, shown: str) -> None:
    visit.open(model).pending()
    visit.page.click("#text-example" if model == "films" else "#example")
    visit.done()
    assert visit.page.locator(shown).count()


def test_a_file_above_the_limit_is_not_sent(visit: Visit, tmp_path: Path) -> None:
    visit.open("pets")
    (tmp_path / "large.png").write_bytes(bytes(70_000))
    visit.page.set_input_files("#file", tmp_path / "large.png")
    visit.page.wait_for_selector("#problem:not([hidden])")
    assert "at most 0.1 MB" in visit.text("#problem-text")
    assert not [url for url in visit.requests if "predict" in url]


def test_a_file_of_another_kind_is_refused_in_the_page(visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    visit.open("pets").drop("body", tmp_path / "notes.txt", "text/plain")
    assert "notes.txt is no image" in visit.text("#problem-text")


def test_a_corrupt_image_gets_a_reason_and_the_next_one_its_classes(
    browser: Any, server: LiveServer, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"broken" * 9)
    with Visit(browser, server.url, expected=("422",)) as visit:
        visit.open("pets").choose(tmp_path / "broken.png")
        assert "cannot show broken.png" in visit.text("#preview")
        assert visit.text(".failed") and "request" in visit.text("#problem-text")
        visit.choose(image_file(tmp_path))
        assert len(visit.texts(".bars .name")) == 3 and visit.page.locator("#problem").is_hidden()


def test_an_image_that_browsers_do_not_decode_is_read_by_the_model(visit: Visit, tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(content, "TIFF")
    (tmp_path / "scan.tif").write_bytes(content.getvalue())
    visit.open("pets").choose(tmp_path / "scan.tif")
    assert "cannot show scan.tif" in visit.text("#preview") and len(visit.texts(".bars .name")) == 3


def test_the_latest_input_wins(visit: Visit, tmp_path: Path) -> None:
    visit.open("pets", "birds").pending()
    for name in ("a.png", "b.png", "c.png"):
        visit.page.set_input_files("#file", image_file(tmp_path, name))
    visit.done()
    visit.frame()
    assert visit.page.locator(".panel").count() == 2 and visit.page.locator("canvas.map").count() == 2
    assert "c.png" in visit.text("#preview") and visit.page.locator("#problem").is_hidden()


def test_a_setting_is_part_of_the_next_prediction(visit: Visit, tmp_path: Path) -> None:
    visit.open("pets").choose(image_file(tmp_path))
    visit.page.click("#settings summary")
    visit.pending()
    visit.page.fill("#settings input[type=number]", "1")
    visit.page.keyboard.press("Tab")
    visit.done()
    assert len(visit.texts(".bars .name")) == 1


def test_the_address_opens_models_and_a_change_is_written_into_it(visit: Visit) -> None:
    visit.open("birds", "pets")
    assert visit.page.input_value("#model") == "birds" and visit.page.input_value("#compare") == "pets"
    visit.page.select_option("#model", "films")
    assert visit.page.evaluate("location.hash") == "#model=films"
    assert visit.page.locator("#texts").is_visible() and visit.page.locator("#files").is_hidden()
    assert visit.page.locator("#compare").is_disabled()


def test_the_theme_is_kept_and_followed(browser: Any, server: LiveServer) -> None:
    with Visit(browser, server.url, color_scheme="light") as visit:
        visit.open("pets")
        paper = "getComputedStyle(document.body).backgroundColor"
        light = visit.page.evaluate(paper)
        visit.page.select_option("#theme", "dark")
        assert visit.page.evaluate(paper) != light
        visit.page.reload()
        visit.page.wait_for_selector("#facts:not(:empty)")
        assert visit.page.input_value("#theme") == "dark" and visit.page.evaluate(paper) != light


def test_every_step_by_keyboard(visit: Visit) -> None:
    visit.open("films").pending()
    visit.page.keyboard.press("Tab")
    assert visit.text(":focus") == "Skip to the result"
    order = []
    for _ in range(9):
        visit.page.keyboard.press("Tab")
        order.append(visit.page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert order[:3] == ["A", "theme", "model"] and "text" in order and order.index("text") < order.index("run")
    visit.page.focus("#text")
    visit.page.keyboard.type("a warm film")
    visit.page.keyboard.press("Control+Enter")
    visit.done()
    assert len(visit.texts(".bars .name")) == 2
    visit.frame()
    assert visit.text("#status").startswith("Done in") and visit.text(".answer") in visit.text("#status")


def test_a_server_that_is_gone_is_named(browser: Any, tmp_path: Path) -> None:
    with LiveServer(["pets"]) as server:
        visit = Visit(browser, server.url, expected=("ERR_CONNECTION_REFUSED",)).open("pets")
    with visit:
        visit.page.set_input_files("#file", image_file(tmp_path))
        visit.page.wait_for_selector("#problem:not([hidden])")
        assert "does not answer" in visit.text("#problem-text")


def test_the_token_is_requested_until_it_is_right_and_kept_in_the_tab(browser: Any, tmp_path: Path) -> None:
    with LiveServer(["pets"], token=TOKEN) as server, Visit(browser, server.url, expected=("401",)) as visit:
        visit.page.goto(server.url)
        visit.page.wait_for_selector("#token[open]")
        visit.page.fill("#token-field", "wrong")
        visit.page.keyboard.press("Enter")
        visit.page.wait_for_selector("#token-note:has-text('refused')")
        visit.page.fill("#token-field", TOKEN)
        visit.page.keyboard.press("Enter")
        visit.page.wait_for_selector("#facts:not(:empty)")
        visit.choose(image_file(tmp_path))
        assert len(visit.texts(".bars .name")) == 3
        assert TOKEN not in str(visit.page.evaluate("({...localStorage})")) + "".join(visit.requests)


def test_runs_and_their_reports(browser: Any, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "classify" / "first"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("task: classify\nmodel: vit_tiny_patch16_224\n")
    (run / "summary.json").write_text('{"top1": 0.91, "loss": 0.2}')
    report = "<!doctype html><title>R</title><body><h1>Report</h1><script>document.title = 'ran'</script>"
    (run / "report.html").write_text(report)
    shutil.copytree(run, tmp_path / "runs" / "second")
    expected = ("401", "Content Security Policy", "sandboxed")
    with (
        LiveServer(["pets"], token=TOKEN, runs=tmp_path / "runs") as server,
        Visit(browser, server.url, expected=expected) as visit,
    ):
        visit.page.goto(server.url)
        visit.page.fill("#token-field", TOKEN)
        visit.page.keyboard.press("Enter")
        visit.page.wait_for_selector("#runs table")
        assert sorted(visit.texts("#runs tbody th")) == ["classify/first", "second"]
        assert "Top-1 91.0%" in visit.text("#runs tbody")
        with visit.context.expect_page() as opened:
            visit.page.click("#runs a >> nth=0")
        opened.value.wait_for_load_state()
        assert opened.value.inner_text("h1") == "Report" and opened.value.title() == "R"  # its script did not run
