"""Interfaces of a study: conditions, a measurement for each condition and seed, and a conclusion from the intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from vitrail.errors import VitrailError, unknown
from vitrail.study.intervals import Estimate, difference, mean_interval, share_interval
from vitrail.tasks.table import Table

Value = TypeVar("Value")
Row = Mapping[str, Any]
"""Figures of one cell, ready for JSON."""


@dataclass(frozen=True)
class StudyOptions:
    """Settings of one run of a study.

    Args:
        seeds: seeds of each condition.
        minutes: time after which no further cell starts.
        quick: sizes of seconds, to try the command; its verdicts mean nothing.
        data: `digits`, or a data set of the user's.
        model: a name of the catalogue or a model folder, for studies that examine given weights.
        weights: checkpoint of that name.
        chosen: choices of the study by name, such as a budget.
        steps: updates of each training; None for the number of the study.

    Raises:
        VitrailError: a number is too small.
    """

    seeds: int = 3
    minutes: float = 10.0
    quick: bool = False
    data: str = "digits"
    model: str | None = None
    weights: str | None = None
    chosen: tuple[tuple[str, str], ...] = ()
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.minutes <= 0:
            raise VitrailError(f"--seeds and --minutes must be above 0, got {self.seeds} and {self.minutes:g}.")
        if self.steps is not None and self.steps < 2:
            raise VitrailError(f"--steps must be at least 2, got {self.steps}.")

    def choice(self, name: str) -> str:
        """Return the value of a choice; `StudyPlan.complete` has set all of them."""
        return dict(self.chosen)[name]

    def pick(self, quick: Value, default: Value) -> Value:
        """Return the first value of a quick run, else the second."""
        return quick if self.quick else default

    def updates(self, quick: int, default: int) -> int:
        """Return the updates of a training: the given number, else the first value of a quick run, else the second."""
        return self.pick(quick, default) if self.steps is None else self.steps


@dataclass(frozen=True)
class Condition:
    """One arm of an experiment.

    Args:
        name: as the tables call it.
        settings: values that the measurement reads; they identify a finished cell.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.settings[name]


@dataclass(frozen=True)
class StudyFigure:
    """A figure of the page.

    Args:
        title: its heading.
        body: SVG or HTML.
        note: caption: the quantity, and how to read it.
        wide: whether it needs the whole width of the page.
    """

    title: str
    body: str
    note: str
    wide: bool = False


@dataclass(frozen=True)
class Conclusion:
    """Answer of a study.

    Args:
        verdict: one sentence, computed from the intervals.
        changes: findings that would change it.
        figures: in the order of the page.
        tables: the figures of the verdict.
        decided: whether the intervals permit an answer.
    """

    verdict: str
    changes: str
    figures: Sequence[StudyFigure] = ()
    tables: Sequence[Table] = ()
    decided: bool = True


class Results:
    """Measured cells by condition and seed.

    Args:
        conditions: the arms, in order.
        cells: figures by name of the condition and seed.
    """

    def __init__(self, conditions: Sequence[Condition], cells: Mapping[tuple[str, int], Row]):
        self.conditions, self.cells = list(conditions), dict(cells)

    def rows(self, name: str) -> list[Row]:
        """Return the figures of a condition, by seed."""
        return [row for (condition, _), row in sorted(self.cells.items()) if condition == name]

    def names(self) -> list[str]:
        """Return the conditions that have a result, in order."""
        done = {name for name, _ in self.cells}
        return [condition.name for condition in self.conditions if condition.name in done]

    def values(self, name: str, metric: str) -> dict[int, float]:
        """Return a metric of a condition by seed."""
        return {seed: float(row[metric]) for (found, seed), row in sorted(self.cells.items()) if found == name}

    def mean(self, name: str, metric: str) -> Estimate:
        """Return the mean of a metric over seeds, with its interval."""
        return mean_interval(list(self.values(name, metric).values()))

    def share(self, name: str, metric: str) -> Estimate:
        """Return the mean of a metric that is a share, with its interval within 0 to 1."""
        return share_interval(list(self.values(name, metric).values()))

    def difference(self, name: str, other: str, metric: str, comparisons: int = 1) -> Estimate:
        """Return how much more `name` has of a metric than `other`, over the seeds that both have."""
        one, two = self.values(name, metric), self.values(other, metric)
        seeds = sorted(one.keys() & two.keys())
        return difference([one[seed] for seed in seeds], [two[seed] for seed in seeds], comparisons)


@dataclass(frozen=True)
class StudyPlan:
    """A question and its experiment.

    Args:
        name: of the study.
        question: in one sentence.
        method: the procedure, in two or three sentences, for the page.
        conditions: the arms of the experiment.
        measure: figures of one cell, from condition, seed and options.
        conclude: the answer from the results.
        choices: names and values of `--set`, the default first.
        examines: whether it takes a given model.
        trains: whether it trains models, so that a number of steps may be given.
    """

    name: str
    question: str
    method: str
    conditions: Callable[[StudyOptions], Sequence[Condition]]
    measure: Callable[[Condition, int, StudyOptions], Row]
    conclude: Callable[[Results, StudyOptions], Conclusion]
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    examines: bool = False
    trains: bool = True

    def complete(self, options: StudyOptions) -> StudyOptions:
        """Return the options with every choice of the study, the first value by default.

        Raises:
            VitrailError: there is no such choice or value, or the study examines no given model, or trains none.
        """
        given = dict(options.chosen)
        for name, value in given.items():
            if not self.choices:
                raise VitrailError(f"The study {self.name} has no settings: leave --set out.")
            if name not in self.choices:
                raise unknown("setting", name, self.choices, hint=f"The study {self.name} has these.")
            if value not in self.choices[name]:
                raise unknown(name, value, self.choices[name])
        if options.model is not None and not self.examines:
            raise VitrailError(f"The study {self.name} trains its own models: leave --model out.")
        if options.steps is not None and not self.trains:
            raise VitrailError(f"The study {self.name} trains no model: leave --steps out.")
        chosen = {name: given.get(name, values[0]) for name, values in self.choices.items()}
        return replace(options, chosen=tuple(chosen.items()))
