"""The built documentation in a browser: pages fit, images load, and axe has no serious finding."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the extra dev is not installed")
from accessible import findings
from browser import chromium

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PAGES = ("index", "tutorials/classify", "gallery", "serving", "export", "families", "reference/door", "search")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make site` builds it."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run([sys.executable, "-m", "sphinx", "-q", "-b", "html", str(ROOT / "docs"), str(folder)], check=True)
    return folder


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1200, "light"), (1200, "dark")])
def test_pages_of_the_site_are_accessible(site: Path, width: int, scheme: str) -> None:
    with chromium() as browser:
        settings = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme, "bypass_csp": True}
        page = browser.new_context(**settings).new_page()
        found = {}
        for name in PAGES:
            page.goto((site / f"{name}.html").as_uri())
            if faults := findings(page):
                found[name] = faults
            wide, inner = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert wide <= inner, name
        assert found == {}
