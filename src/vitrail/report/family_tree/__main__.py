"""Write the page and the drawing of the family tree: `python -m vitrail.report.family_tree docs`."""

import sys
from pathlib import Path

from vitrail.report.family_tree import families
from vitrail.report.family_tree.drawing import to_svg
from vitrail.report.family_tree.page import to_markdown

if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    (folder / "families.md").write_text(to_markdown(families()), encoding="utf-8")
    (folder / "families.svg").write_text(to_svg(families()), encoding="utf-8")
