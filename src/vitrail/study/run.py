"""Run a study: cells that are not finished yet, seed by seed, within the time that is given."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from vitrail.atomic_io import make_folder, write_file
from vitrail.errors import VitrailError
from vitrail.study.page import render_page
from vitrail.study.plan import Conclusion, Condition, Results, StudyOptions, StudyPlan
from vitrail.study.records import CellFile, key_of
from vitrail.training.lock import locked

PAGE, ANSWER = "index.html", "answer.json"

OnMessage = Callable[[str], None]


@dataclass(frozen=True)
class StudyAnswer:
    """Result of a run.

    Args:
        plan: the study.
        conclusion: verdict, figures and tables.
        done: number of cells that are finished.
        total: number of cells of the experiment.
        seconds: time of the finished cells together.
        page: the HTML page.
    """

    plan: StudyPlan
    conclusion: Conclusion
    done: int
    total: int
    seconds: float
    page: Path


def run_study(
    plan: StudyPlan, options: StudyOptions, folder: Path, command: str = "", on_message: OnMessage = lambda line: None
) -> StudyAnswer:
    """Measure what is missing, conclude, and write the page.

    A cell that the folder holds already, of the same settings, is not measured again. When the time is over, the answer
    is that of the finished cells; the same command goes on.

    Args:
        plan: the study.
        options: its settings.
        folder: output folder; it is made.
        command: command line, for the page.
        on_message: called with each line of progress.

    Raises:
        VitrailError: no cell fits into the time, or the study refuses the options.
        ResourceError: another process runs in the folder.
    """
    options = plan.complete(options)
    make_folder(folder)
    with locked(folder):
        conditions = list(plan.conditions(options))
        file = CellFile(folder)
        todo = list(_cells(plan, conditions, options))
        _measure(plan, options, file, todo, on_message)
        cells = {place: file.cells[key] for key, place, _ in todo if key in file.cells}
        if not cells:
            raise VitrailError(f"No cell of '{plan.name}' was finished. Give it more time: --minutes.")
        conclusion = plan.conclude(
            Results(conditions, {place: row["figures"] for place, row in cells.items()}), options
        )
        seconds = sum(row["seconds"] for row in cells.values())
        answer = StudyAnswer(plan, conclusion, len(cells), len(todo), seconds, folder / PAGE)
        write_file(answer.page, render_page(answer, options, command).encode())
        write_file(folder / ANSWER, json.dumps(to_dict(answer, options), indent=2).encode())
        return answer


def to_dict(answer: StudyAnswer, options: StudyOptions) -> dict[str, Any]:
    """Return verdict and tables as plain values."""
    tables = {
        t.title: {"columns": list(t.columns), "rows": [list(r) for r in t.rows]} for t in answer.conclusion.tables
    }
    return {
        "study": answer.plan.name,
        "question": answer.plan.question,
        "verdict": answer.conclusion.verdict,
        "decided": answer.conclusion.decided,
        "changes": answer.conclusion.changes,
        "cells": answer.done,
        "of": answer.total,
        "seconds": round(answer.seconds, 1),
        "seeds": options.seeds,
        "data": options.data,
        "quick": options.quick,
        "choices": dict(options.chosen),
        "steps": options.steps,
        "tables": tables,
    }


def _cells(
    plan: StudyPlan, conditions: list[Condition], options: StudyOptions
) -> Iterator[tuple[str, tuple[str, int], Condition]]:
    """Yield key, place and condition of each cell: all conditions of one seed before the next seed."""
    given = {"quick": options.quick, "data": options.data, "model": options.model, "weights": options.weights}
    given |= dict(options.chosen) | ({} if options.steps is None else {"steps": options.steps})
    for seed in range(options.seeds):
        for condition in conditions:
            parts = {"study": plan.name, "name": condition.name, "settings": dict(condition.settings), "seed": seed}
            yield key_of(parts | given), (condition.name, seed), condition


def _measure(plan: StudyPlan, options: StudyOptions, file: CellFile, todo: list[Any], on_message: OnMessage) -> None:
    """Measure missing cells; stop before one that would not fit, as long as its condition took before."""
    end = monotonic() + 60 * options.minutes
    for number, (key, (name, seed), condition) in enumerate(todo, start=1):
        if key in file.cells:
            continue
        before = [row["seconds"] for row in file.cells.values() if row["name"] == name]
        if monotonic() + (max(before) if before else 0) > end:
            on_message(f"{plan.name}: the time is over; the same command goes on from here")
            return
        started = monotonic()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            figures = dict(plan.measure(condition, seed, options))
        seconds = monotonic() - started
        file.add({"key": key, "name": name, "seed": seed, "seconds": seconds, "figures": figures})
        on_message(f"{plan.name}: cell {number} of {len(todo)}, {name}, seed {seed}: {seconds:.1f} s")
