"""Family tree of the architectures: the change of each, by year, as a page and a drawing.

The sentences are the first lines of the modules' docstrings, years and parents are in `ancestry.py`. The page
`docs/families.md` and its drawing `docs/families.svg` are written by `python -m vitrail.report.family_tree docs`.
"""

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from vitrail.models.published import PUBLISHED
from vitrail.report.family_tree.ancestry import ANCESTRY


class Family(NamedTuple):
    """One architecture in the tree.

    Args:
        name: its module in `vitrail.models`.
        title: its name in the field.
        change: its change, one sentence.
        year: year of its paper.
        parents: families that it was made from.
        task: task of its published weights.
        variants: number of its variants.
    """

    name: str
    title: str
    change: str
    year: int
    parents: tuple[str, ...]
    task: str
    variants: int


def families() -> list[Family]:
    """Return all families in the order of the catalogue.

    Example:
        >>> nat = next(family for family in families() if family.name == "nat")
        >>> nat.title, nat.change, nat.year
        ('NAT', 'each cell attends to the cells around it.', 2023)
    """
    return [family_facts(name) for name in dict.fromkeys(known.family for known in PUBLISHED.values())]


@cache
def family_facts(name: str) -> Family:
    """Return the facts of one family, without importing it.

    A family without a row in `ANCESTRY` has the first year of its docstring and no parents.

    Example:
        >>> family_facts("swin").name
        'swin'
    """
    spec = find_spec(f"vitrail.models.{name}")
    assert spec is not None and spec.origin is not None, name
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    title, _, change = " ".join(text.partition("\n\n")[0].split()).partition(": ")
    if not change:  # a sentence without a title
        title, change = re.split(r" (?:as|with|and) ", title)[0], title
    found = re.search(r"\b20[012]\d\b", text)
    year, *parents = ANCESTRY.get(name, (int(found[0]) if found else 2017,))
    members = [known for known in PUBLISHED.values() if known.family == name]
    return Family(name, title, change.rstrip(":"), int(year), tuple(map(str, parents)), members[0].task, len(members))
