"""One HTML page with images inside: it needs no network and no other file."""

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import NamedTuple

from PIL import Image

_STYLE = """
body { margin: 0 auto; max-width: 1180px; padding: 24px; font: 16px/1.5 system-ui, sans-serif; color: #181a1f;
  background: #f4f5f7; }
h1 { font-size: 24px; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 32px 0 8px; overflow-wrap: anywhere; }
p { margin: 4px 0 16px; color: #5a606c; }
code { background: #e6e8ec; padding: 2px 6px; border-radius: 4px; overflow-wrap: anywhere; }
img { display: block; max-width: 100%; margin: 0 0 12px; border-radius: 8px; box-shadow: 0 1px 4px #0002; }
"""


class Section(NamedTuple):
    """A heading with images under it.

    Args:
        title: the heading.
        text: a sentence under it.
        pictures: images by name; the name is the alternative text.
    """

    title: str
    text: str
    pictures: dict[str, Image.Image]


def page(title: str, text: str, sections: Sequence[Section], command: str = "") -> str:
    """Write the page.

    Args:
        title: of the page.
        text: a sentence under it.
        sections: the sections, in order.
        command: the command line that reproduces the page.
    """
    again = f"<p>Made by <code>{escape(command)}</code></p>" if command else ""
    body = "".join(_section(section) for section in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1><p>{escape(text)}</p>{body}{again}</body></html>\n"
    )


def _section(section: Section) -> str:
    pictures = "".join(f'\n<img alt="{escape(name)}" src="{_inline(one)}">' for name, one in section.pictures.items())
    return f"\n<section><h2>{escape(section.title)}</h2><p>{escape(section.text)}</p>{pictures}</section>"


def _inline(picture: Image.Image) -> str:
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=90, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
