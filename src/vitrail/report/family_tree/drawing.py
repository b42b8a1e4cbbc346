"""Drawing of the family tree: a column a year, a box a family, a curve from each parent."""

from collections.abc import Sequence
from html import escape

from vitrail.report.family_tree import Family

_WIDTH, _HEIGHT, _COLUMN, _ROW, _TOP, _LEFT = 128, 22, 206, 30, 52, 16
_GROUPS = (
    ("images to classes", "#dbeafe", ("classify",)),
    ("dense prediction", "#dcfce7", ("segment", "detect")),
    ("restoration", "#fef9c3", ("restore",)),
    ("points", "#f3e8ff", ("points", "parts")),
    (
        "text and pixels as tokens",
        "#fee2e2",
        ("complete", "language", "masked", "pretrain", "sentiment", "translate", "vector"),
    ),
)
"""Name, colour and tasks of each group of families."""
_COLORS = {task: color for _, color, tasks in _GROUPS for task in tasks}
_LONGEST = 18
"""Letters of a name that fit into a box in any usual font; a longer one is condensed."""


def to_svg(families: Sequence[Family]) -> str:
    """Return the drawing; families of a year are ordered by the rows of their parents, so that few curves cross.

    Args:
        families: the families; parents outside of them are left out.
    """
    places = _places(families)
    years = sorted({family.year for family in families})
    width = _LEFT + _COLUMN * len(years)
    legend = _TOP + _ROW * (1 + max(row for _, row in places.values())) + 14
    height = legend + 20
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    lines += [
        f'<text x="{_LEFT + _COLUMN * i + _WIDTH / 2:g}" y="28" text-anchor="middle" fill="#475569">{year}</text>'
        for i, year in enumerate(years)
    ]
    lines += [
        _curve(places[parent], places[family.name])
        for family in families
        for parent in family.parents
        if parent in places
    ]
    lines += [_box(family, *places[family.name]) for family in families]
    lines += [
        f'<circle cx="{_LEFT + 8 + _COLUMN * i}" cy="{legend}" r="7" fill="{color}" stroke="#64748b"/>'
        f'<text x="{_LEFT + 22 + _COLUMN * i}" y="{legend + 4}">{escape(name)}</text>'
        for i, (name, color, _) in enumerate(_GROUPS)
    ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _places(families: Sequence[Family]) -> dict[str, tuple[int, int]]:
    """Return column and row of each family."""
    years = sorted({family.year for family in families})
    rows: dict[str, float] = {}
    places: dict[str, tuple[int, int]] = {}
    for column, year in enumerate(years):
        members = [family for family in families if family.year == year]
        waiting, order = list(members), []
        while waiting:  # parents of the same year come first
            ready = [f for f in waiting if not any(p in {w.name for w in waiting if w is not f} for p in f.parents)]
            ready = sorted(ready or waiting[:1], key=lambda family: _wanted(family, rows))
            for family in ready:
                rows[family.name] = _wanted(family, rows) + 0.01 * len(order)
                order.append(family)
                waiting.remove(family)
        for row, family in enumerate(sorted(order, key=lambda family: rows[family.name])):
            places[family.name], rows[family.name] = (column, row), row - len(order) / 2
    counts = [sum(family.year == year for family in families) for year in years]
    middle = max(counts) // 2  # columns are centred
    return {name: (column, middle - counts[column] // 2 + row) for name, (column, row) in places.items()}


def _wanted(family: Family, rows: dict[str, float]) -> float:
    known = [rows[parent] for parent in family.parents if parent in rows]
    return sum(known) / len(known) if known else 0.0


def _curve(start: tuple[int, int], end: tuple[int, int]) -> str:
    """Return the curve from a parent to a child; within one year it leaves and enters on the right side."""
    (x0, y0), (x1, y1) = (_corner(*place) for place in (start, end))
    y0, y1 = y0 + _HEIGHT / 2, y1 + _HEIGHT / 2
    if start[0] == end[0]:
        bend = x0 + _WIDTH + 14 + abs(y1 - y0) / 12
        path = f"M{x0 + _WIDTH:g},{y0:g} C{bend:g},{y0:g} {bend:g},{y1:g} {x0 + _WIDTH:g},{y1:g}"
    else:
        middle = (x0 + _WIDTH + x1) / 2
        path = f"M{x0 + _WIDTH:g},{y0:g} C{middle:g},{y0:g} {middle:g},{y1:g} {x1:g},{y1:g}"
    return f'<path d="{path}" fill="none" stroke="#94a3b8"/>'


def _corner(column: int, row: int) -> tuple[int, int]:
    return _LEFT + _COLUMN * column, _TOP + _ROW * row


def _box(family: Family, column: int, row: int) -> str:
    x, y = _corner(column, row)
    fill = _COLORS[family.task]
    length = f' textLength="{_WIDTH - 8}" lengthAdjust="spacingAndGlyphs"' if len(family.name) > _LONGEST else ""
    return (
        f'<a href="#{family.name}"><title>{escape(family.title)}: {escape(family.change)}</title>'
        f'<rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="4" fill="{fill}" stroke="#64748b"/>'
        f'<text x="{x + _WIDTH / 2:g}" y="{y + 15:g}" text-anchor="middle"{length}>{escape(family.name)}</text></a>'
    )
