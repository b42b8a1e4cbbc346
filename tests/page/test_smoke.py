"""The page in a browser, once in the fast tests: an image chosen, its classes, the patch pointed at, no other site."""

from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
from browser import Visit, chromium
from live import HOSTILE, LiveServer, image_file


def test_an_image_gets_its_classes_and_attention(tmp_path: Path) -> None:
    with LiveServer(["pets"]) as server, chromium() as browser, Visit(browser, server.url) as visit:
        visit.open("pets").choose(image_file(tmp_path, f"{HOSTILE.replace('/', '')}.png"))
        names = visit.texts(".bars .name")
        assert len(names) == 3 and HOSTILE in names
        assert visit.text("#status").startswith("Done in")
        visit.page.hover("canvas.map", position={"x": 30, "y": 200})
        visit.frame()
        assert visit.text(".attention .reading").startswith("Row 4, column 1 attends most to ")
        assert visit.page.title() == "Vitrail" and visit.page.locator("main img").count() == 0
