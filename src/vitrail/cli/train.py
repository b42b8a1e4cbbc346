"""`vitrail train`: from a folder of images to a model, a run folder and a report."""

import os
import sys
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from shlex import join
from typing import Any

import tyro

from vitrail.errors import VitrailError
from vitrail.training.config import TrainConfig

EXAMPLES = """
vitrail train digits --imgsz 16 --set dim=48 depths=2,2 num_heads=3,6 patch_size=2 window_size=4
vitrail train pictures/ --model vit_tiny_patch16_224 --weights vit_tiny.pt --epochs 10 --layer-decay 0.75
vitrail train pictures/ --dry-run
vitrail train --resume runs/classify/pictures-vit_tiny_patch16_224
vitrail train --config flowers.yaml --epochs 30
vitrail train pictures/ --model deit_tiny_distilled_patch16_224 --teacher runs/big/weights/best
torchrun --nproc-per-node 2 -m vitrail train pictures/ --batch 256
"""


@dataclass(frozen=True)
class Train(TrainConfig):
    """Train a model on your images; stop it at any moment and resume.

    The run folder holds the config, the metrics of every step, the best and the last weights as model folders, and a
    report. Ctrl-C saves and stops; a second one leaves at once. After a crash or a power cut, `--resume` goes on from
    the last saved state, and ends with the very weights that the undisturbed run would have had.
    """

    data: tyro.conf.Positional[str] = ""
    """What to learn from: digits, a folder, a .csv or .jsonl table, a .tar.gz, or torchvision:NAME@FOLDER."""
    config: str | None = None
    """YAML or JSON file with values for the flags, such as the config.yaml of a run; what is given beside it wins."""

    @classmethod
    def defaults(cls, words: list[str]) -> "Train | None":
        """Return what holds where no word says otherwise: the run that `--resume` names, the file of `--config`."""
        named = dict(pairwise(words))
        values: dict[str, Any] = {}
        if named.get("--resume", "auto") != "auto":
            values |= of_run(Path(named["--resume"]))
        if "--config" in named:
            values |= from_file(Path(named["--config"]))
        if not values:
            return None
        # Not checked yet: a flag beside the file may mend what would not work alone.
        unchecked = object.__new__(cls)
        vars(unchecked).update({**{field.name: field.default for field in fields(cls)}, **values})
        return unchecked

    def run(self) -> int:
        """Train, and return the exit code."""
        from vitrail.training.dry_run import dry_run
        from vitrail.training.reporters import BarReporter, LineReporter
        from vitrail.training.signals import Interrupted, StopRequest, on_signals
        from vitrail.training.train import train

        config = TrainConfig(**{field.name: getattr(self, field.name) for field in fields(TrainConfig)})
        if config.resume not in (None, "auto"):
            if config.out is not None:
                raise VitrailError(f"--resume goes on in {config.resume}: leave --out out, or start a new run.")
            config = replace(config, resume="auto", out=config.resume)  # `defaults` has filled in what was not given
        leads = os.environ.get("RANK", "0") == "0"
        if config.dry_run:
            plan = dry_run(config)
            print("\n".join(plan.lines()) if leads else "", end="\n" if leads else "")
            return 0
        reporter = BarReporter() if sys.stdout.isatty() else LineReporter()
        try:
            with on_signals(StopRequest()) as stop:
                summary = train(config, reporter, stop, command=join(["vitrail", *sys.argv[1:]]))
        except Interrupted as stopped:
            print(stopped, file=sys.stderr)
            return stopped.code
        if leads:
            _report(Path(summary.folder))
        return 0


def of_run(folder: Path) -> dict[str, Any]:
    """Read the config of a run, less its folder."""
    from vitrail.training.run_dir import read_config

    return {**asdict(read_config(folder)), "out": None}


def from_file(path: Path) -> dict[str, Any]:
    """Read the values of a config; that of a run goes without its folder, so that the repeat gets one of its own."""
    from vitrail.training.config_io import read_values, typed
    from vitrail.training.run_dir import ENVIRONMENT

    values = read_values(path)
    if (path.parent / ENVIRONMENT).exists():
        values.pop("out", None)
    try:
        return typed(TrainConfig, values)
    except VitrailError as error:
        raise VitrailError(f"In {path}: {error}") from error


def _report(folder: Path) -> None:
    """Say how good the best weights are, and write the report."""
    from vitrail.lab.evaluation import Evaluation
    from vitrail.lab.formatting import summary_text
    from vitrail.lab.report import write_report
    from vitrail.lab.run_folder import EVALUATION

    print(summary_text(Evaluation.load(folder / EVALUATION)))
    print(f"weights {folder / 'weights' / 'best'}\nreport  {write_report(folder)}")
