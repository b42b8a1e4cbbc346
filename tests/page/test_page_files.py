"""The files of the web page without a browser: texts in one place, no address, labels and ids, no inline code."""

import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "src" / "vitrail" / "serving" / "page"
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(PAGE.glob("*.js"))}
STRINGS = dict(re.findall(r'^  "([\w.]+)": "(.*)",$', SCRIPTS["strings.js"], re.MULTILINE))
OTHERS = {name: text for name, text in SCRIPTS.items() if name != "strings.js"}
KEY = re.compile(r'"([a-z]+(?:\.[A-Za-z]+)+)"')
DYNAMIC = re.compile(r"`([a-z]+\.)\$\{")
LINKS = {"http://www.w3.org/2000/svg"}  # names of a format, nothing is loaded from there


class Page(HTMLParser):
    """Elements of the page with their attributes, and its texts."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.inside = ""
        self.feed((PAGE / "index.html").read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.inside = tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.inside not in (
            "title",
            "p",
        ):  # the title, and the paragraph for browsers without scripts
            self.texts.append(data.strip())


INDEX = Page()
IDS = [attrs["id"] for _, attrs in INDEX.elements if "id" in attrs]


def test_every_text_has_its_string_and_every_string_is_used() -> None:
    used = {attrs[name] for _, attrs in INDEX.elements for name in ("data-t", "data-t-label") if name in attrs}
    areas = {key.partition(".")[0] for key in STRINGS}
    for text in OTHERS.values():
        used |= {key for key in KEY.findall(text) if key.partition(".")[0] in areas}
    shared = re.findall(r"`\$\{area\}\.(\w+)`", SCRIPTS["alignment.js"])  # its texts are from one of two areas
    used |= {f"{area}.{name}" for area in ("translate", "tokens") for name in shared}
    prefixes = tuple(prefix for text in OTHERS.values() for prefix in DYNAMIC.findall(text))
    assert len(STRINGS) > 100 and used - set(STRINGS) == set()
    assert [key for key in STRINGS if key not in used and not key.startswith(prefixes)] == []


def test_texts_are_in_one_file() -> None:
    assert INDEX.texts == []
    prose = {name: re.findall(r'"([A-Z][a-z]+ [a-z][^"]*)"', text) for name, text in OTHERS.items()}
    assert {name: found for name, found in prose.items() if found} == {}


@pytest.mark.parametrize("path", sorted(PAGE.iterdir()), ids=lambda path: path.name)
def test_no_file_names_another_site(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"\b(?:https?|wss?|ftp)://[^\s\"'<>)]*", text)) <= LINKS
    assert not re.search(r"[\"'(]//\w", text)


def test_the_page_is_small_and_runs_no_text() -> None:
    assert sum(len(zlib.compress(path.read_bytes())) for path in PAGE.iterdir()) < 50_000
    for name, text in SCRIPTS.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            name
        )
    for tag, attrs in INDEX.elements:
        assert "style" not in attrs and not any(name.startswith("on") for name in attrs), tag
        assert tag != "style" and (tag != "script" or "src" in attrs)


def test_ids_are_unique_and_those_that_scripts_use_exist() -> None:
    assert len(IDS) == len(set(IDS))
    used = {name for text in OTHERS.values() for name in re.findall(r'\$\("([\w-]+)"\)', text)}
    assert used - set(IDS) == set()


def test_controls_have_labels_and_buttons_texts() -> None:
    targets = {attrs["for"] for tag, attrs in INDEX.elements if tag == "label"}
    assert targets <= set(IDS)
    for tag, attrs in INDEX.elements:
        if tag in ("select", "textarea", "input") and "hidden" not in attrs:
            assert attrs["id"] in targets, attrs
        if tag == "button":
            assert attrs.get("data-t") and attrs["type"] in ("button", "submit"), attrs
        for name in ("aria-labelledby", "aria-describedby"):
            assert attrs.get(name, IDS[0]) in IDS


def test_modules_import_what_others_export() -> None:
    exported = {
        name: set(re.findall(r"^export (?:async )?(?:function\*?|const|class) ([\w$]+)", text, re.MULTILINE))
        for name, text in SCRIPTS.items()
    }
    imported: dict[str, set[str]] = {name: set() for name in SCRIPTS}
    for text in SCRIPTS.values():
        for names, file in re.findall(r'import \{ ([^}]+) \} from "\./([\w.]+)"', text):
            imported[file] |= {each.strip() for each in names.split(",")}
    assert {file: names - exported[file] for file, names in imported.items() if names - exported[file]} == {}
    unused = {file: names - imported[file] for file, names in exported.items() if names - imported[file]}
    assert unused == {}
