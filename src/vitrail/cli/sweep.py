"""`vitrail sweep`: search of hyperparameters."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from vitrail.cli.train import TrainVerb
from vitrail.cli.train import bind as bind_train
from vitrail.errors import VitrailError
from vitrail.training.config import config_class

EXAMPLES = """
vitrail sweep digits --space lr=1e-4:1e-2:log optimizer=adamw,muon --trials 20 --epochs 10
vitrail sweep --config flowers.yaml --space mixup=0:0.8 drop_path=0:0.3 --trials 30 --out sweeps/flowers
vitrail sweep --config flowers.yaml --space mixup=0:0.8 drop_path=0:0.3 --trials 30 --out sweeps/flowers   # helps
"""


def bind(words: Sequence[str]) -> type:
    """Return the class of the verb for the task of the words, as `vitrail train` does."""
    return sweep_class(bind_train(words))


@cache
def sweep_class(trained: type) -> type:
    """Return the class with the flags of `vitrail train` and those of a sweep."""
    body: dict[str, Any] = {"__doc__": SweepVerb.__doc__, "__module__": __name__}
    return dataclass(frozen=True)(type("Sweep", (SweepVerb, trained), body))


@dataclass(frozen=True)
class SweepVerb(TrainVerb):
    """Search hyperparameters with optuna: trials are runs, and the best validation metric counts.

    All flags of `vitrail train` hold for every trial. The folder of the sweep (--out) has a journal: start the same
    command in several processes or on several machines to work on one sweep, or again after a stop to continue it.
    """

    space: tuple[str, ...] = ()
    """What to search: name=low:high, name=low:high:log, or name=a,b,c."""
    trials: int = 20
    """Finished trials of the whole sweep."""

    def run(self) -> int:
        """Search, print the trials, and return the exit code."""
        from vitrail.cli.table import print_table
        from vitrail.tasks import find_task
        from vitrail.tasks.formatting import format_value
        from vitrail.training.reporters import LineReporter
        from vitrail.training.search_space import parse_space
        from vitrail.training.signals import Interrupted, StopRequest, on_signals
        from vitrail.training.sweep import sweep

        if self.trials < 1:
            raise VitrailError(f"--trials is {self.trials}; it must be at least 1.")
        kind = config_class(self.task)  # pyright: ignore[reportAttributeAccessIssue]
        config = kind(**{field.name: getattr(self, field.name) for field in fields(kind)})
        if config.resume is not None or config.folds or config.dry_run:
            raise VitrailError(
                "A sweep continues by itself, and its trials are single runs: no resume, folds, dry_run."
            )
        space = parse_space(config.task, self.space)
        root = Path(config.out or f"sweeps/{config.task}")
        try:
            with on_signals(StopRequest()) as stop:
                done = sweep(config, space, self.trials, root, LineReporter(), stop)
        except Interrupted as stopped:
            print(f"Stopped and saved. Start the same command to go on in {root}.", file=sys.stderr)
            return stopped.code
        spec = find_task(config.task).metrics[0]
        names = [one.name for one in space]
        rows = [
            [one.folder.name, spec.format(one.best), *(format_value(one.values.get(name)) for name in names)]
            for one in done
        ]
        print_table(["trial", spec.title, *names], rows, right=[spec.title])
        print(f"best    {done[0].folder / 'weights' / 'best'}")
        return 0
