"""`vitrail train`: from data to a model, a run folder and a report."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from shlex import join
from typing import Any

import tyro

from vitrail.cli.task_flags import named, task_of_model
from vitrail.errors import VitrailError
from vitrail.tasks import DEFAULT
from vitrail.training.config import RunConfig, config_class

EXAMPLES = """
vitrail train digits --imgsz 16 --set dim=48 depths=2,2 num_heads=3,6 patch_size=2 window_size=4
vitrail train photos/ --model vit_tiny_patch16_224 --weights vit_tiny.pt --epochs 10 --layer-decay 0.75
vitrail train photos/ --dry-run
vitrail train --resume runs/classify/photos-vit_tiny_patch16_224
vitrail train --config flowers.yaml --epochs 30
vitrail train photos/ --folds 5
vitrail train photos/ --model deit_tiny_distilled_patch16_224 --teacher runs/big/weights/best
torchrun --nproc-per-node 2 -m vitrail train photos/ --batch 256
"""


def bind(words: Sequence[str]) -> type:
    """Return the class of the verb for the task of `--task`, the resumed run, the config file or the model."""
    if task := named(words, "task"):
        return train_class(task)
    for path in (named(words, "config"), named(words, "resume")):
        if path and path != "auto":
            file = Path(path) / "config.yaml" if Path(path).is_dir() else Path(path)
            with suppress(VitrailError):  # `defaults` names the fault of a file that cannot be read
                return train_class(read_task(file))
    model = named(words, "model")
    return train_class(DEFAULT if model is None else task_of_model(["--model", model]))


@cache
def train_class(task: str) -> type:
    """Return the dataclass of the command line of a task: the fields of its config are the flags.

    Example:
        >>> hasattr(train_class("classify"), "epochs")
        True
    """
    bases = (TrainVerb, config_class(task))
    body: dict[str, Any] = {"__doc__": TrainVerb.__doc__, "__module__": __name__}
    return dataclass(frozen=True)(type("Train", bases, body))


@dataclass(frozen=True)
class TrainVerb:
    """Train a model; stop it at any moment and resume.

    The run folder holds the config, the metrics of every step, the best and the last weights as model folders, and a
    report. Ctrl-C saves and stops; a second one leaves at once. After a crash or a power cut, `--resume` continues from
    the last saved state, and ends with the same weights as an undisturbed run.
    """

    data: tyro.conf.Positional[str] = ""
    """Training data: digits, a folder, a .csv or .jsonl table, a .tar.gz, or torchvision:NAME@FOLDER."""
    config: str | None = None
    """YAML or JSON file with values for the flags, such as the config.yaml of a run; flags override it."""

    @classmethod
    def defaults(cls, words: list[str]) -> "TrainVerb | None":
        """Return the values of flags that are not given: from the run that `--resume` names, or the `--config` file."""
        given = dict(pairwise(words))
        values: dict[str, Any] = {}
        if given.get("--resume", "auto") != "auto":
            values |= of_run(Path(given["--resume"]))
        if "--config" in given:
            values |= from_file(Path(given["--config"]))
        if not values:
            return None
        # Not checked yet: a flag may correct a value of the file that would not work alone.
        unchecked = object.__new__(cls)
        vars(unchecked).update({**{field.name: field.default for field in fields(cls)}, **values})
        return unchecked

    def run(self) -> int:
        """Train, and return the exit code."""
        from vitrail.training.dry_run import dry_run
        from vitrail.training.reporters import BarReporter, LineReporter
        from vitrail.training.signals import Interrupted, StopRequest, on_signals
        from vitrail.training.train import train

        config = self._config()
        if config.resume not in (None, "auto"):
            if config.out is not None:
                raise VitrailError(f"--resume continues in {config.resume}; remove --out, or start a new run.")
            config = replace(config, resume="auto", out=config.resume)  # `defaults` has filled in the rest
        is_rank0 = os.environ.get("RANK", "0") == "0"
        if config.dry_run:
            plan = dry_run(config)
            print("\n".join(plan.lines()) if is_rank0 else "", end="\n" if is_rank0 else "")
            return 0
        reporter = BarReporter() if sys.stdout.isatty() else LineReporter()
        command = join(["vitrail", *sys.argv[1:]])
        try:
            with on_signals(StopRequest()) as stop:
                if config.folds and config.fold is None:
                    return _cross_validate(config, reporter, stop, command)
                summary = train(config, reporter, stop, command=command)
        except Interrupted as stopped:
            print(stopped, file=sys.stderr)
            return stopped.code
        if is_rank0:
            _report(Path(summary.folder))
        return 0

    def _config(self) -> RunConfig:
        """Return the config without the fields of the command line."""
        kind = config_class(self.task)  # pyright: ignore[reportAttributeAccessIssue]
        return kind(**{field.name: getattr(self, field.name) for field in fields(kind)})


def read_task(path: Path) -> str:
    """Return the task of a config file; one without is of the default task."""
    from vitrail.training.config_io import read_values

    return str(read_values(path).get("task", DEFAULT))


def of_run(folder: Path) -> dict[str, Any]:
    """Read the config of a run, without its folder."""
    from vitrail.training.run_dir import read_config

    return {**asdict(read_config(folder)), "out": None}


def from_file(path: Path) -> dict[str, Any]:
    """Read the values of a config file; that of a run without its folder, so that a repeat gets a new one."""
    from vitrail.training.config_io import read_values, typed
    from vitrail.training.run_dir import ENVIRONMENT

    values = read_values(path)
    if (path.parent / ENVIRONMENT).exists():
        values.pop("out", None)
    try:
        return typed(config_class(str(values.get("task", DEFAULT))), values)
    except VitrailError as error:
        raise VitrailError(f"In {path}: {error}") from error


def _cross_validate(config: RunConfig, reporter: Any, stop: Any, command: str) -> int:
    """Train for every fold, and print their figures."""
    from vitrail.cli.table import print_table
    from vitrail.training.cross_validation import cross_validate

    result = cross_validate(config, reporter, stop, command)
    table = result.table()
    print_table(table.columns, table.rows, right=table.right)
    print("\n".join([*table.notes, f"runs    {result.folder}"]))
    return 0


def _report(folder: Path) -> None:
    """Print the summary of the best weights, and write the report."""
    from vitrail.report.html_page import write_report
    from vitrail.tasks.evaluation_file import read_evaluation
    from vitrail.training.run_dir import EVALUATION

    print(read_evaluation(folder / EVALUATION).summary())
    print(f"weights {folder / 'weights' / 'best'}\nreport  {write_report(folder)}")
