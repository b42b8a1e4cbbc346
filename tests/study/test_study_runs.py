"""The harness: cells once, resumed after a kill, within a time; pages that work offline; errors of the user."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vitrail.cli import main
from vitrail.errors import DataError, ResourceError, VitrailError
from vitrail.study import STUDIES, find_study, learner
from vitrail.study.learner import LearnSettings, descend
from vitrail.study.plan import Conclusion, Condition, Results, StudyOptions, StudyPlan
from vitrail.study.questions import warmup
from vitrail.study.records import FILE, CellFile
from vitrail.study.run import run_study
from vitrail.training.lock import locked


def toy(calls: list[tuple[str, int]], stop: int | None = None) -> StudyPlan:
    """Build a study of two conditions that counts its measurements."""

    def measure(condition: Condition, seed: int, options: StudyOptions) -> dict[str, float]:
        if len(calls) == stop:
            raise KeyboardInterrupt
        calls.append((condition.name, seed))
        return {"x": condition["level"] + seed}

    def conclude(results: Results, options: StudyOptions) -> Conclusion:
        return Conclusion(f"{results.difference('b', 'a', 'x').mean:g} & <more>", "Nothing.")

    arms = [Condition("a", {"level": 1.0}), Condition("b", {"level": 3.0})]
    return StudyPlan("toy", "Is b larger?", "We count.", lambda options: arms, measure, conclude)


def test_every_cell_is_measured_once_in_seed_order(tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []
    answer = run_study(toy(calls), StudyOptions(seeds=2), tmp_path)
    assert calls == [("a", 0), ("b", 0), ("a", 1), ("b", 1)] and (answer.done, answer.total) == (4, 4)
    run_study(toy(calls), StudyOptions(seeds=3), tmp_path)
    assert calls[4:] == [("a", 2), ("b", 2)]
    run_study(toy(calls), StudyOptions(seeds=2, data="other"), tmp_path)
    assert len(calls) == 10, "cells of other data were taken"
    run_study(toy(calls), StudyOptions(seeds=2, steps=7), tmp_path)
    assert len(calls) == 14, "cells of other trainings were taken"


def test_a_killed_run_continues_and_a_torn_line_is_measured_again(tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []
    with pytest.raises(KeyboardInterrupt):
        run_study(toy(calls, stop=3), StudyOptions(seeds=2), tmp_path)
    cells = tmp_path / FILE
    cells.write_bytes(cells.read_bytes()[:-9])
    run_study(toy(calls), StudyOptions(seeds=2), tmp_path)
    assert calls == [("a", 0), ("b", 0), ("a", 1), ("a", 1), ("b", 1)]
    assert len(CellFile(tmp_path).cells) == 4


def test_the_time_limit_ends_the_run_with_partial_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100_000, 20))
    monkeypatch.setattr("vitrail.study.run.monotonic", lambda: next(clock))
    answer = run_study(toy([]), StudyOptions(seeds=3, minutes=2), tmp_path)
    assert 0 < answer.done < answer.total
    assert "Not finished" in answer.page.read_text()


def test_faults_are_reported(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ResourceError, match="in use"):
        run_study(toy([]), StudyOptions(), tmp_path)
    (tmp_path / FILE).write_text('{"key": 1\n')
    with pytest.raises(DataError, match="line 1 is not a cell"):
        run_study(toy([]), StudyOptions(), tmp_path)
    with pytest.raises(VitrailError, match="--seeds"):
        StudyOptions(seeds=0)
    with pytest.raises(VitrailError, match="windows"):
        find_study("window")


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_runs_in_quick_sizes(name: str, tmp_path: Path) -> None:
    plan = find_study(name)
    assert (plan.name, plan.question) == (name, STUDIES[name])
    answer = run_study(plan, StudyOptions(seeds=1, quick=True), tmp_path, f"vitrail study {name}")
    assert answer.done == answer.total
    page = re.sub(r'data:[^"]*"', 'data:"', answer.page.read_text())
    assert not re.search(r"""(src|href)=["'](?!data:)""", page), "the page loads something"
    assert "http" not in page.replace("http-equiv", "") and "nan" not in re.sub(r"[a-z]+nan|nan[a-z]+", "", page)
    assert answer.conclusion.verdict.endswith(".") and answer.conclusion.changes and answer.conclusion.figures
    assert json.loads((tmp_path / "answer.json").read_text())["verdict"] == answer.conclusion.verdict
    again = run_study(
        replace(plan, measure=lambda *_: pytest.fail("measured again")), StudyOptions(1, quick=True), tmp_path
    )
    assert again.done == answer.done


@pytest.mark.parametrize("name", [name for name in STUDIES if find_study(name).trains])
def test_a_given_number_of_steps_is_used(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []

    def counting(model: Any, loss: Any, settings: LearnSettings) -> list[float]:
        used.append(settings.steps)
        return descend(model, loss, settings)

    for place in (learner, warmup):
        monkeypatch.setattr(place, "descend", counting)
    run_study(find_study(name), StudyOptions(seeds=1, quick=True, steps=4), tmp_path)
    assert used and max(used) == 4 and (set(used) == {4} or name == "tickets"), "only tickets train for a share of it"


def test_steps_of_a_study_without_training_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VitrailError, match="trains no model"):
        run_study(find_study("recurrence"), StudyOptions(quick=True, steps=4), tmp_path)
    with pytest.raises(VitrailError, match="--steps"):
        StudyOptions(steps=1)


def test_the_command_lists_and_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in STUDIES)
    assert main(["study", "windows", "--weights", "x.pt"]) == 2
    assert "--model" in capsys.readouterr().err
