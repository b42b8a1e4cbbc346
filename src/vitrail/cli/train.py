"""`vitrail train`: from a folder of pictures to a model, a run folder and a report."""

import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import join

import tyro

from vitrail.training.config import TrainConfig

EXAMPLES = """
vitrail train digits --imgsz 16 --set dim=48 depths=2,2 num_heads=3,6 patch_size=2 window_size=4
vitrail train pictures/ --model vit_tiny_patch16_224 --weights vit_tiny.pt --epochs 10 --layer-decay 0.75
vitrail train pictures/ --dry-run
vitrail train --resume runs/classify/pictures-vit_tiny_patch16_224
vitrail train pictures/ --model deit_tiny_distilled_patch16_224 --teacher runs/big/weights/best
torchrun --nproc-per-node 2 -m vitrail train pictures/ --batch 256
"""


@dataclass(frozen=True)
class Train(TrainConfig):
    """Train a model on your pictures; stop it at any moment and resume.

    The run folder holds the config, the metrics of every step, the best and the last weights as model folders, and a
    report. Ctrl-C saves and stops; a second one leaves at once. After a crash or a power cut, `--resume` goes on from
    the last saved state, and ends with the very weights that the undisturbed run would have had.
    """

    data: tyro.conf.Positional[str] = ""
    """What to learn from: a folder of class folders, a CSV or JSONL file, or the name of a known data set (digits)."""

    def run(self) -> int:
        """Train, and return the exit code."""
        from vitrail.training.dry_run import dry_run
        from vitrail.training.progress import Bar, Lines
        from vitrail.training.stop import Stop, Stopped, on_signals
        from vitrail.training.train import train

        config = TrainConfig(**asdict(self))
        leads = os.environ.get("RANK", "0") == "0"
        if config.dry_run:
            plan = dry_run(config)
            print("\n".join(plan.lines()) if leads else "", end="\n" if leads else "")
            return 0
        reporter = Bar() if sys.stdout.isatty() else Lines()
        try:
            with on_signals(Stop()) as stop:
                summary = train(config, reporter, stop, command=join(["vitrail", *sys.argv[1:]]))
        except Stopped as stopped:
            print(stopped, file=sys.stderr)
            return stopped.code
        if leads:
            _report(Path(summary.folder), summary.data, summary.split)
        return 0


def _report(folder: Path, data: str, split: str) -> None:
    """Evaluate the best weights and write the report."""
    from vitrail.lab.evaluate import evaluate
    from vitrail.lab.report import write_report
    from vitrail.lab.words import in_words

    best = folder / "weights" / "best"
    evaluation = evaluate(best, data, split=split)
    evaluation.save(folder / "evaluation.json")
    print(in_words(evaluation))
    print(f"weights {best}\nreport  {write_report(folder)}")
