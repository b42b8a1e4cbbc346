"""A page that compares runs: their curves in common charts, their figures, and where their configs differ."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import vitrail
from vitrail.atomic_io import write_file
from vitrail.report.run_folder import RecordedRun, read_run
from vitrail.report.runs import RunRow, differences, run_row
from vitrail.tasks.formatting import duration, format_value
from vitrail.tasks.page_design import page_glass, page_head
from vitrail.tasks.svg_chart import Series, line_chart, thin

LETTERS = "ABCDEFGHIJ"


def write_comparison(folders: Sequence[Path], path: Path) -> Path:
    """Write a page with the curves of runs; each has a letter and a colour.

    Raises:
        VitrailError: a folder holds no run.
    """
    write_file(path, comparison(folders).encode())
    return path


def comparison(folders: Sequence[Path]) -> str:
    """Render the page as self-contained HTML."""
    runs, rows = [read_run(folder) for folder in folders], [run_row(folder) for folder in folders]
    letters = LETTERS[: len(runs)]
    found = differences([run.config for run in runs])
    environment = Environment(
        loader=PackageLoader("vitrail.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("comparison.html").render(
        head=page_head(f"{len(runs)} runs – Vitrail"),
        glass=page_glass(),
        figures=[_figures(letter, row) for letter, row in zip(letters, rows, strict=True)],
        found=[(name, [format_value(one) for one in values]) for name, values in found],
        letters=letters,
        charts=charts(runs),
        version=vitrail.__version__,
    )


def _figures(letter: str, row: RunRow) -> list[str]:
    best = f"{row.metric} {row.shown} {row.split}"
    return [letter, str(row.folder), row.model, row.data, best, duration(row.seconds), row.state]


def charts(runs: Sequence[RecordedRun]) -> list[tuple[str, Markup]]:
    """Return the charts: losses, the metrics that all runs have, and the learning rate."""
    specs = [spec for spec in runs[0].metrics if all(spec in run.metrics for run in runs)]
    columns: list[tuple[str, str, bool]] = [
        ("Training loss", "train_loss", False),
        ("Validation loss", "val_loss", False),
    ]
    columns += [(spec.title, spec.name, spec.unit == "%") for spec in specs]
    drawn = [(title, _chart(runs, title, name, percent)) for title, name, percent in columns]
    rates = [thin(_series(run.steps, LETTERS[i], "lr", i)) for i, run in enumerate(runs)]
    drawn.append(("Learning rate", line_chart(rates, "update", "learning rate", zero=True)))
    return [(title, Markup(svg)) for title, svg in drawn if svg]


def _chart(runs: Sequence[RecordedRun], title: str, name: str, percent: bool) -> str:
    series = [_series(run.epochs, LETTERS[i], name, i) for i, run in enumerate(runs)]
    return line_chart(series, "update", title.lower(), percent=percent)


def _series(rows: Sequence[Any], letter: str, name: str, number: int) -> Series:
    values = [float("nan") if row.get(name) is None else float(row[name]) for row in rows]
    return Series(letter, [float(row["step"]) for row in rows], values, f"run{number}")
