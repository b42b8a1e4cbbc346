"""HTML report of a run: one self-contained page without external resources."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import vitrail
from vitrail.atomic_io import write_file
from vitrail.parts.model import Model
from vitrail.report.curves import curves
from vitrail.report.explain_section import look_inside
from vitrail.report.run_folder import RecordedRun, read_run, task_of_config
from vitrail.tasks.formatting import duration, format_value, human_count
from vitrail.tasks.page_design import page_glass, page_head
from vitrail.tasks.results import MetricCard
from vitrail.tasks.skipped import skipped_names_text
from vitrail.training.config import config_class


def write_report(run_folder: str | PathLike[str]) -> Path:
    """Write `report.html` into a run folder: all results of the run on one page.

    An unfinished run gets a report of its progress.

    Args:
        run_folder: output of `vitrail train`, with an `evaluation.json` if the model was evaluated.

    Returns:
        The file.

    Raises:
        VitrailError: the folder has no run.
        DataError: one of its files is damaged.
    """
    folder = Path(run_folder)
    return write_page(read_run(folder), folder / "report.html")


def write_page(run: RecordedRun, path: Path, model: Model | None = None) -> Path:
    """Write the report of a run, or of an evaluation alone, to a file; see `render`."""
    write_file(path, render(run, model).encode())
    return path


def render(run: RecordedRun, model: Model | None = None) -> str:
    """Render the report of a run as self-contained HTML.

    Args:
        run: the run.
        model: the model to explain; by default the one in the run folder.
    """
    evaluation = run.evaluation
    settings, defaults = _settings(run.config)
    sections = [] if evaluation is None else evaluation.sections()
    scripts = list(dict.fromkeys(section.script for section in sections if section.script))
    return (
        _environment()
        .get_template("report.html")
        .render(
            run=run,
            evaluation=evaluation,
            facts=list(_facts(run)),
            cards=list(_cards(run)),
            sections=sections,
            scripts=[Markup(script) for script in scripts],
            head=page_head(f"{run.name} – Vitrail report", " ".join(map(_script_hash, scripts))),
            glass=page_glass(),
            curves=curves(run),
            inside=look_inside(run, model),
            settings=settings,
            defaults=defaults,
            written=datetime.now(UTC).strftime("%d %B %Y at %H:%M UTC"),
            version=vitrail.__version__,
        )
    )


def _script_hash(script: str) -> str:
    """Return the source expression that allows one inline script in a content security policy."""
    return f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"


def _facts(run: RecordedRun) -> Iterator[str]:
    """Yield the subtitle: the model, its training data, the evaluated data, and what was left out."""
    model = run.evaluation.model if run.evaluation else run.config.get("model")
    if model and model != run.name:
        yield str(model)
    if run.config.get("data"):
        yield f"trained on {run.config['data']}"
    if run.evaluation is not None:
        yield f"evaluated on {run.evaluation.data}"
    if count := run.summary.get("skipped"):
        names = skipped_names_text(count, run.summary.get("skipped_names", []))
        yield f"{count:,} {'sample' if count == 1 else 'samples'} left out as unusable: {names}"


def _cards(run: RecordedRun) -> Iterator[MetricCard]:
    evaluation, summary = run.evaluation, run.summary
    if evaluation is not None:
        yield from evaluation.cards()
    elif run.epochs:
        yield _best_so_far(run)
    parameters = evaluation.parameters if evaluation else summary.get("parameters")
    if parameters:
        yield MetricCard("Parameters", human_count(parameters), f"{parameters:,}")
    seconds = summary.get("seconds") or (run.epochs[-1].get("seconds") if run.epochs else None)
    if seconds:
        yield MetricCard("Training time", duration(seconds), f"{len(run.steps):,} updates" if run.steps else "")


def _best_so_far(run: RecordedRun) -> MetricCard:
    """Return the best validation metric of a run without an evaluation."""
    first = run.metrics[0]
    known = [row for row in run.epochs if row.get(first.name) is not None] or [*run.epochs]
    choose = max if first.higher_is_better else min
    best = choose(known, key=lambda row: row.get(first.name) or 0.0)
    note = f"validation, epoch {format_value(best.get('epoch'))}"
    return MetricCard(
        f"Best {first.title[:1].lower()}{first.title[1:]} so far", first.format(best.get(first.name)), note
    )


def _settings(config: Mapping[str, Any]) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Return the settings that differ from the defaults, and those that do not."""
    usual = {each.name: each.default for each in fields(config_class(task_of_config(config)))}
    plain_values = {name: list(value) if isinstance(value, tuple) else value for name, value in usual.items()}
    left = {name: value for name, value in config.items() if name in usual and value == plain_values[name]}
    return [pair for pair in config.items() if pair[0] not in left], list(left.items())


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vitrail.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = format_value
    return environment
