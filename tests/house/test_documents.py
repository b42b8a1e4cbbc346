"""The pages are true: links lead somewhere, examples run, and no file names this or that machine."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("recipes/**/*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def broken_links(page: Path) -> list[str]:
    """Return the links of a page to files and headings that are not there; addresses of the web are left alone."""
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        place, _, heading = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if re.match(r"[a-z]+:", link):
            continue
        if not target.exists() or (heading and heading not in _anchors(target)):
            broken.append(link)
    return broken


def _anchors(page: Path) -> set[str]:
    titles = HEADING.findall(FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@each_page
def test_links_resolve(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_detected(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Here it is\n[a](#here-it-is) [b](page.md) [c](lost.md) [d](#nowhere) [e](https://example.org)")
    assert broken_links(page) == ["lost.md", "#nowhere"]


@each_page
def test_examples_of_pages_run(page: Path) -> None:
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testfile(str(page), module_relative=False, optionflags=options).failed == 0


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Every file under version control; nothing to look at in an unpacked archive."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file()]


# Written in pieces, so that this file does not match its own patterns.
MACHINE = re.compile(r"(?<![\w.])/(?:wor" + r"k|far" + r"m|hom" + r"e/\w+|roo" + r"t)/")
INDEX = re.compile(r"(?:index-" + r"url|registry)\s*[=:]\s*[\"{]|https?://[^\s)]*(?:/sim" + r"ple\b|registry\.)")


def test_no_tracked_file_names_a_machine_or_a_package_index(tracked: list[Path]) -> None:
    found = []
    for path in tracked:
        text = path.read_bytes().decode("utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {hit[0]}" for rule in (MACHINE, INDEX) for hit in rule.finditer(text)]
    assert found == []


def test_the_patterns_match_their_examples() -> None:
    assert MACHINE.search("see /wor" + "k/main") and MACHINE.search('"/roo' + 't/x"') and not MACHINE.search("a/work/b")
    assert INDEX.search("index-" + 'url = "x"') and INDEX.search("https://example.org/sim" + "ple/")


def test_no_tracked_file_is_large(tracked: list[Path]) -> None:
    assert [path.name for path in tracked if path.stat().st_size > 1 << 20] == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-b",
        "html",
        str(ROOT / "docs"),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = [path.read_text() for path in tmp_path.rglob("*.html")]
    outside = {url for page in pages for url in re.findall(r'(?:src|<link[^>]*href)="(https?://[^"]+)"', page)}
    assert len(pages) > 25 and outside == set()  # nothing is loaded from a network


def test_images_of_the_gallery_are_small() -> None:
    files = [path for path in (ROOT / "docs" / "gallery").iterdir() if path.suffix == ".png"]
    page = (ROOT / "docs" / "gallery.md").read_text()
    assert sum(path.stat().st_size for path in files) < 1 << 20 and all(path.name in page for path in files)
