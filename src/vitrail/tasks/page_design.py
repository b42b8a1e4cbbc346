"""The design of every HTML page: style sheet, head of the page, and the security policy."""

from functools import cache
from importlib.resources import files

from markupsafe import Markup

_GLASS = """<svg class="glass" viewBox="0 0 120 6" preserveAspectRatio="none" aria-hidden="true"><path class="p1" \
d="M0 0h21l-5 6H0z"/><path class="p2" d="M21.6 0h13l7 6h-25z"/><path class="p3" d="M35.3 0H63l-4 6H42.300z"/><path \
class="p4" d="M63.700 0H80l9 6H59.700z"/><path class="p1" d="M80.700 0H101l-6 6h-5.300z"/><path class="p3" \
d="M101.700 0H120v6H95.700z"/></svg>"""


@cache
def page_style() -> Markup:
    """Return the style sheet: light and dark, phone and desktop, paper.

    Example:
        >>> "prefers-color-scheme: dark" in page_style()
        True
    """
    return Markup((files("vitrail.tasks") / "page.css").read_text(encoding="utf-8"))


def page_glass() -> Markup:
    """Return the coloured band at the top of a page.

    Example:
        >>> "<svg" in page_glass()
        True
    """
    return Markup(_GLASS)


def page_head(title: str, scripts: str = "") -> Markup:
    """Return the head of a self-contained page, which may load nothing.

    Args:
        title: of the page; it is escaped.
        scripts: source expressions of the scripts that the page holds, for its policy.

    Example:
        >>> "&lt;b&gt;" in page_head("<b>") and "script-src" not in page_head("x")
        True
    """
    policy = f"; script-src {scripts}" if scripts else ""
    return Markup(
        '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        'style-src \'unsafe-inline\'{policy}">\n<meta name="color-scheme" content="light dark">\n'
        '<title>{title}</title>\n<link rel="icon" href="data:,">\n<style>\n{style}</style>'
    ).format(policy=Markup(policy), title=title, style=page_style())
