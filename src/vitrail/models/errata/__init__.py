"""Ledger of errata: where paper, official code and other libraries disagree, whom we follow, and the test of it.

One file a family, each with a tuple `ERRATA`; every file of the folder is part of the ledger. The page `docs/errata.md`
is made from it: `python -m vitrail.models.errata > docs/errata.md`.
"""

from importlib import import_module
from pkgutil import iter_modules

from vitrail.models.errata.erratum import Erratum

__all__ = ["Erratum", "errata", "to_markdown"]

_HEAD = """# Errata

Where paper, official code and other libraries disagree, or where a detail is often got wrong: who says what, whom this
library follows, and the test that fails if the detail is wrong. Made from `src/vitrail/models/errata/` by
`python -m vitrail.models.errata`.
"""


def errata() -> list[Erratum]:
    """Return all entries, family by family.

    Example:
        >>> {"swin", "vit"} <= {entry.family for entry in errata()}
        True
    """
    names = sorted(module.name for module in iter_modules(__path__) if module.name not in ("erratum", "__main__"))
    return [entry for name in names for entry in import_module(f"{__name__}.{name}").ERRATA]


def to_markdown() -> str:
    """Return the page: one section a family, one entry a paragraph."""
    lines, family = [_HEAD], ""
    for entry in errata():
        if entry.family != family:
            family = entry.family
            lines.append(f"## {family}\n")
        lines.append(f"**{entry.detail}**\n")
        lines += [f"- {source}" for source in entry.sources]
        lines += [f"- here: {entry.ours}", f"- test: `{entry.test}`", ""]
    return "\n".join(lines).rstrip() + "\n"
