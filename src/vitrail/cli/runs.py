"""`vitrail runs`: table of runs, differences of their configs, their curves on one page."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from vitrail.errors import VitrailError

EXAMPLES = """
vitrail runs
vitrail runs experiments/ --sort best --task classify
vitrail runs diff runs/classify/digits runs/classify/digits-2
vitrail runs compare runs/classify/digits runs/classify/digits-2 --out compared.html
"""

ACTIONS = ("list", "diff", "compare")


@dataclass(frozen=True)
class Runs:
    """List runs with their best metric; show where configs differ (diff); draw curves together (compare).

    The words are folders that hold runs (default: runs/), or `diff A B` or `compare A B ...` with run folders.
    """

    words: Positional[tuple[str, ...]] = ()
    """Folders to search for runs; or diff, or compare, and then the run folders."""
    task: str | None = None
    """List only runs of this task."""
    sort: Literal["recent", "best", "time", "name"] = "recent"
    """Order of the list."""
    out: Path = Path("compared.html")
    """Page that compare writes."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """List, diff or compare, and return the exit code."""
        action, *rest = self.words or ("list",)
        if action not in ACTIONS:
            action, rest = "list", [action, *rest]
        folders = [Path(word) for word in rest]
        if action == "list":
            return self._list(folders or [Path("runs")])
        if len(folders) < 2:
            raise VitrailError(f"`vitrail runs {action}` needs at least two run folders; got {len(folders)}.")
        return self._diff(folders) if action == "diff" else self._compare(folders)

    def _list(self, roots: list[Path]) -> int:
        from vitrail.cli.table import print_table
        from vitrail.report.runs import find_runs, run_row, runs_table

        rows = [run_row(folder) for root in roots for folder in find_runs(root)]
        rows = [row for row in rows if self.task in (None, row.task)]
        orders = {
            "recent": lambda row: -row.changed,
            "best": lambda row: (row.task, row.best is None, -row.rank),
            "time": lambda row: -row.seconds,
            "name": lambda row: str(row.folder),
        }
        rows.sort(key=orders[self.sort])
        if self.json:
            import json

            print(json.dumps([row.to_dict() for row in rows], indent=1))
            return 0
        if not rows:
            print(f"No runs in {', '.join(map(str, roots))}.", file=sys.stderr)
            return 0
        table = runs_table(rows, roots[0] if len(roots) == 1 else Path("."))
        print_table(table.columns, table.rows, right=table.right)
        return 0

    def _diff(self, folders: list[Path]) -> int:
        from vitrail.cli.table import print_table
        from vitrail.report.run_folder import read_run
        from vitrail.report.runs import differences, differences_table

        found = differences([read_run(folder).config for folder in folders])
        names = [str(folder) for folder in folders]
        if self.json:
            import json

            print(json.dumps({name: dict(zip(names, values, strict=True)) for name, values in found}, indent=1))
            return 0
        if not found:
            print("The configs are equal.")
            return 0
        table = differences_table(names, found)
        print_table(table.columns, table.rows)
        return 0

    def _compare(self, folders: list[Path]) -> int:
        from vitrail.atomic_io import check_writable
        from vitrail.report.run_comparison import LETTERS, write_comparison

        if len(folders) > len(LETTERS):
            raise VitrailError(f"A page compares at most {len(LETTERS)} runs; got {len(folders)}.")
        check_writable(self.out)
        print(f"page {write_comparison(folders, self.out)}", file=sys.stderr)
        return 0
