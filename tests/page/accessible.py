"""Axe in a page: findings of accessibility. Its script is the file of VITRAIL_AXE; without it nothing is looked for."""

import os
from pathlib import Path
from typing import Any


def findings(page: Any, every: bool = False) -> list[tuple[str, str]]:
    """Return rule and first element of each serious or critical finding in an open page; with `every` of all.

    The context of the page has to bypass its content security policy.
    """
    axe = Path(os.environ.get("VITRAIL_AXE", ""))
    if not axe.is_file():
        return []
    page.evaluate(axe.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then((result) => result.violations)")
    return [(one["id"], one["nodes"][0]["html"]) for one in found if every or one["impact"] in ("serious", "critical")]
