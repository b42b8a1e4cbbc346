"""One HTML page with the attention of texts: every head of every layer; it loads nothing from elsewhere."""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vitrail.tasks.page_design import page_glass, page_head


def attention_page(
    title: str,
    lead: str,
    views: Sequence[Mapping[str, Any]],
    caption: str,
    body: Markup = Markup(),  # noqa: B008
    verb: str = "explain",
    command: str = "",
) -> str:
    """Return the page.

    Args:
        title: of the page.
        lead: a sentence under it.
        views: `alignment_view` of each text, with its `caption`; those without maps are left out.
        caption: sentence above the maps.
        body: sections above the maps.
        verb: verb of the command, for the line above the title.
        command: the command line that reproduces the page.
    """
    kept = [view for view in views if view["maps"]]
    script = _environment().get_template("attention.js").render() if kept else ""
    # "<" could end the script element.
    data = json.dumps(kept, ensure_ascii=False).replace("<", "\\u003c") if kept else ""
    digest = b64encode(sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("attention.html")
        .render(
            head=page_head(f"{title} – Vitrail", f"'sha256-{digest}'" if kept else ""),
            glass=page_glass(),
            title=title,
            lead=lead,
            caption=caption,
            body=body,
            verb=verb,
            command=command,
            data=Markup(data),
            script=Markup(script),
        )
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("vitrail.tasks"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
