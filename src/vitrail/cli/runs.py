"""`vitrail runs`: table of runs, differences of their configs, their curves on one page."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from vitrail.errors import VitrailError

EXAMPLES = """
vitrail runs
vitrail runs experiments/ --sort best --task classify
vitrail runs diff runs/classify/digits runs/classify/digits-2
vitrail runs compare runs/classify/digits runs/classify/digits-2 --out compared.html
vitrail runs soup runs/a runs/b runs/c --out models/soup                      # mean of the weights
vitrail runs soup runs/a runs/b runs/c --out models/soup --data flowers/      # greedy, by the val split
"""

ACTIONS = ("list", "diff", "compare", "soup")


@dataclass(frozen=True)
class Runs:
    """List runs with their best metric; diff their configs; compare their curves; average their weights (soup).

    The words are folders that hold runs (default: runs/), or `diff A B`, `compare A B ...` or `soup A B ...` with run
    folders. A soup is the mean of the weights of runs that began from the same weights; with --data only runs are
    averaged that do not lower the metric on its val split (greedy).
    """

    words: Positional[tuple[str, ...]] = ()
    """Folders to search for runs; or diff, compare or soup, and then the run folders."""
    task: str | None = None
    """List only runs of this task."""
    sort: Literal["recent", "best", "time", "name"] = "recent"
    """Order of the list."""
    out: Path | None = None
    """Page that compare writes (default: compared.html), or model folder of the soup."""
    data: str | None = None
    """Data set on whose val split a greedy soup is chosen."""
    device: str = "auto"
    """Device of a greedy soup: auto, cpu, cuda, ..."""
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
        return {"diff": self._diff, "compare": self._compare, "soup": self._soup}[action](folders)

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
        out = self.out or Path("compared.html")
        check_writable(out)
        print(f"page {write_comparison(folders, out)}", file=sys.stderr)
        return 0

    def _soup(self, folders: list[Path]) -> int:
        from shlex import join

        from vitrail.inference.model_loading import find_model
        from vitrail.inference.soup import batch_norms, greedy_soup, uniform_soup
        from vitrail.report.run_start import check_starts
        from vitrail.weights.folder import check_replaceable, save_model

        if self.out is None:
            raise VitrailError("A soup needs a folder to write: --out models/soup")
        check_replaceable(self.out)
        if unknown := check_starts(folders):
            names = ", ".join(unknown)
            print(f"note: it is not known whether {names} began from the same weights as {folders[0]}", file=sys.stderr)
        models = [find_model(folder, device=self.device) for folder in folders]
        command = join(["vitrail", *sys.argv[1:]])
        if self.data is None:
            print(f"mean of {len(models)} models", file=sys.stderr)
            print(save_model(uniform_soup(models), self.out, command=command))
            return 0
        score, spec = self._score(models[0], "val")
        run = self._score(models[0], "train")[0] if batch_norms(models[0]) else None
        found = greedy_soup(models, score, run)
        for number, folder in enumerate(folders):
            kept = " in the soup" if number in found.members else ""
            print(f"{spec.format(abs(found.scores[number]))}  {folder}{kept}", file=sys.stderr)
        print(f"{spec.format(abs(found.score))}  soup of {len(found.members)}", file=sys.stderr)
        metrics = {spec.name: abs(found.score)}
        print(save_model(found.model, self.out, command=command, metrics=metrics, dataset=f"{self.data} (val split)"))
        return 0

    def _score(self, model: Any, split: str) -> Any:
        """Return the function from a model to its first metric on a split (higher is better), and that metric."""
        from vitrail.inference.model_loading import task_of
        from vitrail.tasks import find_options, find_task

        task = find_task(task_of(model))
        spec, samples = task.metrics[0], task.open_split(str(self.data), split)
        options = find_options(task.name).EvaluateOptions(optimize=False)
        sign = 1.0 if spec.higher_is_better else -1.0
        return lambda one: sign * task.evaluate(one, samples, options).metrics()[spec.name], spec
