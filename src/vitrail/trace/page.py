"""One HTML page of a trace: offline, interactive, in the design of the report."""

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import asdict
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import vitrail
from vitrail.atomic_io import write_file
from vitrail.tasks.page_design import page_glass, page_head
from vitrail.trace.frame import ModelTrace
from vitrail.trace.twins import loop_source

FIELDS = ("size", "image", "frames", "lens")
"""Fields of a trace that the script of the page reads."""


def page_data(trace: ModelTrace) -> dict[str, Any]:
    """Return the JSON value inside a page."""
    data = {name: getattr(trace, name) for name in FIELDS}
    return {**data, "frames": [asdict(frame) for frame in trace.frames]}


def render(trace: ModelTrace) -> str:
    """Render a trace as self-contained HTML."""
    environment = Environment(
        loader=PackageLoader("vitrail.trace"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["count"] = lambda value: "?" if value is None else f"{value:,}" if value else ""
    read = _reader(environment)
    script = read("trace.js")
    # "<" could end the script element.
    data = json.dumps(page_data(trace), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return environment.get_template("trace.html").render(
        trace=trace,
        subject="One image through the model" if trace.image else "One text through the model",
        data=Markup(data),
        script=Markup(script),
        head=page_head(f"{trace.model} – Vitrail trace", f"'sha256-{_digest(script)}'"),
        glass=page_glass(),
        loop=loop_source(),
        version=vitrail.__version__,
    )


def write_page(trace: ModelTrace, path: str | PathLike[str]) -> Path:
    """Write the page of a trace to a file."""
    target = Path(path)
    write_file(target, render(trace).encode())
    return target


def _reader(environment: Environment) -> Callable[[str], str]:
    def read(name: str) -> str:
        assert environment.loader is not None
        return environment.loader.get_source(environment, name)[0]

    return read


def _digest(script: str) -> str:
    return b64encode(sha256(script.encode()).digest()).decode()
