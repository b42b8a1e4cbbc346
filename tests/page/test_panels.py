"""The panel of each task, and the viewer of attention, in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
from accessible import findings
from browser import Visit, chromium
from live import MODELS, LiveServer, image_file

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(list(MODELS)) as running:
        yield running


@pytest.fixture
def visit(browser: Any, server: LiveServer) -> Iterator[Visit]:
    with Visit(browser, server.url) as opened:
        yield opened


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return image_file(tmp_path)


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    points = np.random.default_rng(0).normal(size=(300, 3))
    np.savetxt(tmp_path / "cloud.xyz", points, fmt="%.5f")
    return tmp_path / "cloud.xyz"


def test_pointing_at_patches_changes_every_map(visit: Visit, photo: Path) -> None:
    visit.open("pets").choose(photo)
    seen = []
    for x, y in ((20, 20), (300, 60), (420, 430)):
        visit.page.hover("canvas.map", position={"x": x, "y": y})
        visit.frame()
        seen.append((visit.text(".attention .reading"), visit.pixels("canvas.map"), visit.pixels("canvas.atlas")))
    assert all(len(set(column)) == 3 for column in zip(*seen, strict=True))
    assert seen[2][0].startswith("Row 8, column 8")


def test_patches_and_layers_by_keyboard(visit: Visit, photo: Path) -> None:
    visit.open("pets").choose(photo)
    visit.page.focus("canvas.map")
    for key, row, column in (("ArrowUp", 4, 5), ("ArrowUp", 3, 5), ("ArrowLeft", 3, 4), ("ArrowDown", 4, 4)):
        visit.page.keyboard.press(key)
        visit.frame()
        assert visit.text(".attention .reading").startswith(f"Row {row}, column {column} ")
    assert visit.page.get_attribute(".attention input[type=range]", "aria-valuetext") == "layer 1, 2 of 2"
    visit.page.keyboard.press("PageUp")
    visit.frame()
    assert visit.page.get_attribute(".attention input[type=range]", "aria-valuetext") == "layer 0, 1 of 2"


def test_the_class_token_and_single_heads(visit: Visit, photo: Path) -> None:
    visit.open("pets").choose(photo)
    assert visit.text(".attention .reading").startswith("The class token attends most to ")
    mean = visit.pixels("canvas.map")
    visit.page.select_option(".attention select", label="Head 3")
    visit.frame()
    assert visit.pixels("canvas.map") != mean
    visit.page.click(".chip >> nth=1")
    visit.frame()
    assert visit.text(".attention .reading").startswith("Row ")


def test_the_atlas_chooses_layer_and_head(visit: Visit, photo: Path) -> None:
    visit.open("pets").choose(photo)
    visit.page.click("canvas.atlas", position={"x": 12, "y": 20 + 2 * 47 + 10})
    visit.frame()
    assert visit.page.input_value(".attention input[type=range]") == "0"
    assert visit.page.input_value(".attention select") == "2"


def test_a_window_model_frames_its_window(visit: Visit, photo: Path) -> None:
    visit.open("birds").choose(photo)
    visit.page.locator(".attention input[type=range]").fill("1")  # shifted windows of the first stage
    visit.page.hover("canvas.map", position={"x": 200, "y": 200})
    visit.frame()
    assert "It sees 16 of 256 patches here (framed)." in visit.text(".attention .reading")


def test_a_model_without_maps_shows_a_reason(visit: Visit, photo: Path) -> None:
    visit.open("pools").choose(photo)
    assert "pools computes no softmax attention" in visit.text(".attention")


def test_rollout_and_gradcam_are_listed_with_the_heads(visit: Visit, photo: Path) -> None:
    visit.open("birds").choose(photo)
    head = visit.pixels("canvas.map")
    visit.page.select_option(".attention select", "rollout")
    visit.page.wait_for_selector(".attention .reading:has-text('The answer')")
    whole = visit.pixels("canvas.map")
    assert whole != head and visit.page.is_disabled(".attention input[type=range]")
    visit.page.hover("canvas.map", position={"x": 20, "y": 20})
    visit.frame()
    assert visit.text(".attention .reading").startswith("Row 1, column 1 of the last layer draws most from row ")
    assert visit.pixels("canvas.map") != whole
    visit.page.click(".attention .chip:has-text('Answer')")
    visit.frame()
    assert visit.pixels("canvas.map") == whole
    visit.page.select_option(".attention select", "gradcam")
    visit.page.wait_for_selector(".attention .reading:has-text('The class')")
    assert visit.pixels("canvas.map") != whole
    visit.page.select_option(".attention select", "-1")
    visit.frame()
    assert visit.page.is_enabled(".attention input[type=range]")


def test_a_model_without_maps_has_gradcam(visit: Visit, photo: Path) -> None:
    visit.open("pools").choose(photo)
    assert visit.text(".attention .reading").startswith("The class depends most on row ")
    assert visit.page.locator("canvas.map").count() == 1


def test_the_card_of_a_model(visit: Visit, photo: Path) -> None:
    visit.open("pets", "pools")
    visit.page.click("#card summary")
    visit.page.wait_for_selector("#card dl >> nth=1")
    assert visit.texts("#card h3") == ["pets", "pools"]
    first = visit.text("#card dl >> nth=0")
    for part in ("vit_tiny_patch16_224", "17,331", "FLOPs", "not stated", "75.4", "apache-2.0"):
        assert part in first, first


def test_given_rows_and_samples(visit: Visit, photo: Path) -> None:
    visit.open("rows").choose(photo)
    captions = visit.texts(".tiles .caption")
    assert captions[-4:] == ["sample 1", "sample 2", "sample 3", "sample 4"] and captions[0] == "given rows"
    assert visit.page.evaluate("[...document.querySelectorAll('.tiles img')].every((one) => one.naturalWidth > 0)")
    first = visit.page.get_attribute(".tiles img >> nth=-1", "src")
    visit.page.click("#settings summary")
    visit.pending()
    visit.page.locator(".field:has-text('Seed') input").fill("7")
    visit.page.keyboard.press("Tab")
    visit.done()
    assert visit.page.get_attribute(".tiles img >> nth=-1", "src") != first


def test_several_labels_of_an_image(visit: Visit, photo: Path) -> None:
    visit.open("tags").choose(photo)
    some = visit.texts(".bars .name")
    assert visit.text(".answer") == (", ".join(some) or "No class reaches its threshold")
    visit.page.click("#settings summary")
    visit.pending()
    visit.page.locator(".field:has-text('Least score') input").fill("0.01")
    visit.page.keyboard.press("Tab")
    visit.done()
    assert set(visit.texts(".bars .name")) == {"sky", "sea", "sand"}


def test_the_trace_of_a_text_opens_in_a_tab(visit: Visit) -> None:
    visit.open("films").type("a warm film")
    visit.page.click("text=Trace this text step by step")
    visit.page.wait_for_selector("a:has-text('Open the trace of films')")
    with visit.context.expect_page() as opened:
        visit.page.click("a:has-text('Open the trace of films')")
    opened.value.wait_for_load_state()
    assert "Vitrail trace" in opened.value.inner_text("header")


def test_two_models_side_by_side_share_the_patch(visit: Visit, photo: Path) -> None:
    visit.open("pets", "birds").choose(photo)
    assert visit.texts(".panel h2") == ["pets", "birds"] and visit.page.locator(".bars").count() == 2
    before = visit.pixels("canvas.map >> nth=1")
    visit.page.hover("canvas.map >> nth=0", position={"x": 30, "y": 30})
    visit.frame()
    first, second = visit.texts(".attention .reading")
    assert first.startswith("Row 1, column 1") and second.startswith("Row 1, column 1")
    assert visit.pixels("canvas.map >> nth=1") != before


def test_the_trace_of_an_image_opens_in_a_tab(visit: Visit, photo: Path) -> None:
    visit.open("pets").choose(photo)
    visit.page.click("text=Trace this image step by step")
    visit.page.wait_for_selector("a:has-text('Open the trace of pets')")
    with visit.context.expect_page() as opened:
        visit.page.click("a:has-text('Open the trace of pets')")
    opened.value.wait_for_load_state()
    assert "Vitrail trace" in opened.value.inner_text("header")


def test_masks_with_opacity_and_legend(visit: Visit, photo: Path) -> None:
    visit.open("scene").choose(photo)
    names = visit.texts(".legend .name")
    assert set(names) <= {"ground", "disc", "box"} and names
    full = visit.pixels("canvas.picture")
    visit.page.locator(".body input[type=range]").fill("0")
    none = visit.pixels("canvas.picture")
    visit.page.locator(".body input[type=range]").fill("0.55")
    assert visit.pixels("canvas.picture") == full != none
    for box in visit.page.locator(".legend input").all():
        box.uncheck()
    assert visit.pixels("canvas.picture") == none
    visit.page.hover("canvas.picture", position={"x": 20, "y": 20})
    assert visit.text(".body .reading").removeprefix("Here: ") in names


def test_boxes_with_a_slider_of_scores(visit: Visit, photo: Path) -> None:
    visit.open("cells").choose(photo)
    visit.page.locator(".body input[type=range]").fill("0")
    every = visit.page.locator(".legend li:visible").count()
    drawn = visit.pixels("canvas.picture")
    assert every > 1 and f"{every} of {every} objects" in visit.text(".body .reading")
    visit.page.locator(".legend button >> nth=0").focus()
    assert visit.pixels("canvas.picture") != drawn
    visit.page.locator(".body input[type=range]").fill("1")
    assert visit.page.locator(".legend li:visible").count() == 0


def test_the_restored_image_under_a_slider(visit: Visit, photo: Path) -> None:
    visit.open("sharp").choose(photo)
    assert "180 × 120 pixels, factor 2" in visit.text(".body")
    clip = "document.querySelector('.before').style.clipPath"
    start = visit.page.evaluate(clip)
    visit.page.focus(".body input[type=range]")
    visit.page.keyboard.press("ArrowLeft")
    assert visit.page.evaluate(clip) != start
    assert visit.page.get_attribute(".body input[type=range]", "aria-valuetext") == "51.0%"
    box = visit.page.locator(".compare").bounding_box()
    visit.page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 20)
    visit.page.mouse.down()
    visit.page.mouse.up()
    assert abs(float(visit.page.input_value(".body input[type=range]")) - 0.8) < 0.02
    assert visit.page.evaluate("document.querySelector('.after').naturalWidth") == 180
    with visit.page.expect_download() as saved:
        visit.page.click("a.button")
    assert saved.value.suggested_filename == "restored.png"


def test_a_cloud_turns(visit: Visit, cloud: Path) -> None:
    visit.open("clouds").choose(cloud)
    assert set(visit.texts(".bars .name")) == {"lamp", "cone"}
    start = visit.pixels("canvas.cloud")
    visit.page.focus("canvas.cloud")
    visit.page.keyboard.press("ArrowRight")
    turned = visit.pixels("canvas.cloud")
    visit.page.keyboard.press("ArrowLeft")
    assert turned != start == visit.pixels("canvas.cloud")
    box = visit.page.locator("canvas.cloud").bounding_box()
    visit.page.mouse.move(box["x"] + 100, box["y"] + 100)
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + 180, box["y"] + 120, steps=3)
    visit.page.mouse.up()
    assert visit.pixels("canvas.cloud") != start
    visit.page.check(".clouds input[type=checkbox]")
    held = visit.pixels("canvas.cloud")
    visit.frame()
    assert visit.pixels("canvas.cloud") != held


def test_parts_of_a_cloud(visit: Visit, cloud: Path) -> None:
    visit.open("parts").choose(cloud)
    assert visit.texts(".legend .name") == ["base", "shade"] and visit.page.locator("canvas.cloud").count() == 1


def test_word_attributions(visit: Visit) -> None:
    visit.open("films").type("a warm and <b>dull</b> film")
    assert set(visit.texts(".bars .name")) == {"bad", "good"}
    marked = visit.page.locator("mark").count()
    assert 0 < marked <= 5 and "<b>dull</b>" in visit.page.text_content(".words")
    first = visit.pixels("canvas.matrix")
    visit.page.select_option(".body select >> nth=1", "1")
    assert visit.pixels("canvas.matrix") != first
    visit.page.locator("button.token >> nth=3").focus()
    assert " attends most to " in visit.page.locator(".body .reading").inner_text()
    assert "for it, " in visit.page.text_content(".words") or "against it, " in visit.page.text_content(".words")


def test_a_translation_with_its_alignment(visit: Visit) -> None:
    visit.open("german").type("a warm film")
    assert visit.text(".answer")
    first = visit.text(".body .reading")
    visit.page.locator("button.token >> nth=2").focus()
    assert visit.text(".body .reading") != first and " comes from " in first
    mean = visit.pixels("canvas.matrix")
    visit.page.select_option(".body select >> nth=1", "1")
    assert visit.pixels("canvas.matrix") != mean


def test_a_text_streams_with_alternative_tokens(visit: Visit) -> None:
    visit.open("writer").type("a warm ")
    pieces = visit.page.locator(".piece").count()
    assert pieces > 20 and f"{pieces} pieces in" in visit.text(".body .reading")
    assert visit.page.text_content(".stream").startswith("a warm ")
    visit.page.focus(".stream")
    for _ in range(3):
        visit.page.keyboard.press("ArrowRight")
    assert visit.page.locator(".piece.lit").count() == 1
    assert "was chosen with probability" in visit.text(".alternatives") and len(visit.texts(".alternatives .name")) == 5


def test_a_stream_can_be_stopped(visit: Visit) -> None:
    visit.open("writer")
    visit.page.click("#settings summary")
    visit.page.locator(".field:has-text('New tokens') input").fill("1000")
    visit.page.keyboard.press("Tab")
    visit.pending()
    visit.page.fill("#text", "a ")
    visit.page.evaluate(
        """() => new MutationObserver(() => {
             if (document.querySelector(".piece")) document.querySelector(".body button")?.click();
           }).observe(document.querySelector("#results"), {subtree: true, childList: true})"""
    )
    visit.page.click("#run")
    visit.done()
    assert visit.text(".body .reading").startswith("Stopped after")
    assert visit.page.locator(".piece").count() < 1000


def test_mask_tokens_are_filled(visit: Visit) -> None:
    visit.open("masked").type("a [MASK] and [MASK] film")
    assert visit.texts(".body h4") == ["Mask 1", "Mask 2"] and visit.page.locator(".bars").count() == 2


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1200, "dark")])
def test_every_panel_fits_and_is_accessible(
    browser: Any, server: LiveServer, photo: Path, cloud: Path, model: str, width: int, scheme: str
) -> None:
    size = {"width": width, "height": 844}
    with Visit(browser, server.url, viewport=size, color_scheme=scheme, bypass_csp=True) as visit:
        visit.open(model)
        if visit.page.locator("#texts").is_visible():
            visit.type("a [MASK] film")
        else:
            visit.choose(cloud if model in ("clouds", "parts") else photo)
        wide, inner = visit.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= inner
        assert findings(visit.page, every=True) == []
