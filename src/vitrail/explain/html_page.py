"""One HTML page with images inside, in the design of the report: it needs no network and no other file."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup
from PIL import Image

from vitrail.explain.figure_grid import FigureGrid
from vitrail.tasks.data_url import encode
from vitrail.tasks.page_design import page_glass, page_head


class Section(NamedTuple):
    """A heading with figures under it.

    Args:
        title: the heading.
        text: a sentence under it.
        figures: figures by name; the name of a plain image is its title.
    """

    title: str
    text: str
    figures: dict[str, FigureGrid] | dict[str, Image.Image]


def page(title: str, text: str, sections: Sequence[Section], command: str = "", verb: str = "explain") -> str:
    """Write the page.

    Args:
        title: of the page.
        text: a sentence under it.
        sections: the sections, in order.
        command: the command line that reproduces the page.
        verb: verb of the command, for the line above the title.
    """
    again = Markup('<section><h2>Repeat it</h2><pre tabindex="0"><code>{}</code></pre></section>').format(command)
    header = Markup('<header>{}<p class="kicker">Vitrail {}</p><h1>{}</h1><p class="lead">{}</p></header>')
    return Markup(
        '<!doctype html>\n<html lang="en">\n<head>\n{}\n</head>\n'
        "<body>\n<main>\n{}\n{}\n{}\n</main>\n</body>\n</html>\n"
    ).format(
        page_head(f"{title} – Vitrail"),
        header.format(page_glass(), verb, title, text),
        Markup("\n").join(_section(section) for section in sections),
        again if command else "",
    )


def _section(section: Section) -> Markup:
    figures = Markup("\n").join(
        one.html() if isinstance(one, FigureGrid) else _plain(name, one) for name, one in section.figures.items()
    )
    return Markup('<section><h2>{}</h2>\n<p class="caption">{}</p>\n<div class="panels">{}</div></section>').format(
        section.title, section.text, figures
    )


def _plain(name: str, image: Image.Image) -> Markup:
    return Markup('<figure class="panel"><h3>{}</h3><img class="mosaic" src="{}" alt="{}"></figure>').format(
        name[:1].upper() + name[1:], encode(image, exact=max(image.size) < 512), name
    )
