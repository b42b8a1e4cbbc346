"""The page in a real browser: opening it, giving inputs as users do, and the record of its requests."""

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
"""Flags of a browser with a camera that shows a test image and is always allowed."""


@contextmanager
def chromium(*flags: str) -> Iterator[Any]:
    """Start the system's browser, or skip the test with the reason."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"there is no browser at {CHROMIUM}")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*_FLAGS, *flags])
        yield browser
        browser.close()


class Visit:
    """One visit of the page.

    Args:
        browser: the browser.
        url: address of the server.
        expected: parts of console messages that are expected, such as the status of an error.
        context: settings of the browser context.

    Attributes:
        requests: all addresses that the browser asked for.
        complaints: messages of the console, of violated policies and of uncaught errors.
    """

    def __init__(self, browser: Any, url: str, expected: tuple[str, ...] = (), **context: Any):
        self.url, self.expected = url, expected
        self.context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **context})
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        unexpected = [text for text in self.complaints if not any(part in text for part in self.expected)]
        foreign = [url for url in self.requests if not url.startswith((self.url, "data:", "blob:"))]
        self.context.close()
        if kind is None:
            assert unexpected == [] and foreign == []

    def open(self, model: str, compare: str = "") -> "Visit":
        """Open the page with a model chosen."""
        self.page.goto(f"{self.url}/#model={model}" + (f"&compare={compare}" if compare else ""))
        self.page.wait_for_selector("#facts:not(:empty)")
        return self

    def choose(self, path: Path) -> "Visit":
        """Choose a file, and wait for the result."""
        self.pending()
        self.page.set_input_files("#file", path)
        return self.done()

    def type(self, text: str) -> "Visit":
        """Type a text, run it, and wait for the result."""
        self.pending()
        self.page.fill("#text", text)
        self.page.click("#run")
        return self.done()

    def pending(self) -> None:
        """Forget that there is a result."""
        self.page.evaluate("document.querySelector('#results').removeAttribute('aria-busy')")

    def done(self) -> "Visit":
        """Wait until every panel is filled."""
        self.page.wait_for_selector("#results[aria-busy=false]")
        return self

    def frame(self) -> None:
        """Wait until drawings are up to date."""
        self.page.evaluate("new Promise((done) => setTimeout(done, 60))")

    def text(self, selector: str) -> str:
        """Return the text of the first element of a selector."""
        return self.page.inner_text(selector)

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements of a selector."""
        return self.page.locator(selector).all_inner_texts()

    def pixels(self, selector: str) -> str:
        """Return the content of a canvas."""
        return self.page.eval_on_selector(selector, "canvas => canvas.toDataURL()")

    def drop(self, target: str, path: Path, kind: str = "image/png") -> None:
        """Drop a file on an element, with the events that a browser sends."""
        self._transfer("drag", target, path.read_bytes(), path.name, kind)

    def paste_file(self, path: Path, kind: str = "image/png") -> None:
        """Paste a file while nothing is focused."""
        self._transfer("paste", "body", path.read_bytes(), path.name, kind)

    def paste_text(self, text: str, target: str = "body") -> bool:
        """Paste a text at an element; return whether the page left it to the browser."""
        return self.page.eval_on_selector(
            target,
            """(node, text) => {
              const data = new DataTransfer();
              data.setData("text/plain", text);
              const paste = {clipboardData: data, bubbles: true, cancelable: true};
              return node.dispatchEvent(new ClipboardEvent("paste", paste));
            }""",
            text,
        )

    def _transfer(self, how: str, target: str, content: bytes, name: str, kind: str) -> None:
        self.page.eval_on_selector(
            target,
            """(node, [how, content, name, kind]) => {
              const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
              const data = new DataTransfer();
              data.items.add(new File([bytes], name, {type: kind}));
              const send = (event) => node.dispatchEvent(event);
              if (how === "paste") {
                send(new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true}));
                return;
              }
              for (const type of ["dragenter", "dragover"])
                send(new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true}));
              window.veiled = !document.querySelector("#veil").hidden;
              window.stayed = !send(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
            }""",
            [how, base64.b64encode(content).decode(), name, kind],
        )
