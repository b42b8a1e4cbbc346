"""The page of the family tree."""

from collections.abc import Sequence

from vitrail.report.family_tree import Family

_HEAD = """# Families

What each architecture of the catalogue changed, in one sentence, in the order of their years; colours are those of the
tasks. Made from the docstrings of `src/vitrail/models/` and `src/vitrail/report/family_tree/ancestry.py` by
`python -m vitrail.report.family_tree docs`.
Variants, parameters, multiply-adds and accuracies of one: `vitrail models --family NAME`.

[![Family tree of the architectures; open it for the full size](families.svg)](families.svg)
"""


def to_markdown(families: Sequence[Family]) -> str:
    """Return the page: a section a year, an entry a family.

    Args:
        families: the families.
    """
    lines, year = [_HEAD], 0
    for family in sorted(families, key=lambda family: family.year):
        if family.year != year:
            year = family.year
            lines.append(f"## {year}\n")
        origin = f" From {' and '.join(f'`{parent}`' for parent in family.parents)}." if family.parents else ""
        count = f"{family.variants} variants" if family.variants > 1 else "1 variant"
        change = family.change[0].upper() + family.change[1:]
        lines.append(f"- **{family.title}** (`{family.name}`, {count}). {change.rstrip('.')}.{origin}\n")
    return "\n".join(lines).rstrip() + "\n"
