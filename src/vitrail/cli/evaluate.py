"""`vitrail evaluate`: measure a trained model."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from vitrail.cli.table import print_table

if TYPE_CHECKING:
    from vitrail.lab.evaluation import Evaluation
    from vitrail.lab.metrics import ClassFigures

EXAMPLES = """
vitrail evaluate runs/classify/digits digits
vitrail evaluate runs/classify/flowers flowers/ --split val
vitrail evaluate runs/classify/flowers new_flowers/ --split all --report new.html --out new.json
vitrail evaluate vit_tiny_patch16_224 imagenet_val/ --weights vit_tiny.pt --split all
"""


@dataclass(frozen=True)
class Evaluate:
    """Measure a model on a data set: top-1, figures of each class with their intervals, calibration, worst errors.

    Every image counts once, whatever the batch. Classes are matched by their names.
    """

    model: Positional[str]
    """A model folder, a run folder, a name in the catalogue (with --weights), or hf:org/name@revision."""
    data: Positional[str]
    """digits, a folder, a .csv or .jsonl table, a .tar.gz, or torchvision:NAME@FOLDER."""
    split: Literal["train", "val", "test", "all"] = "test"
    """Which split; all takes a data set that is not split as a whole."""
    weights: str | None = None
    """A checkpoint, where the model is a name in the catalogue."""
    labels: Path | None = None
    """Text file with a class name a line, where the model has none or others are wanted."""
    batch: int = 64
    """Images that pass the model together; the figures do not depend on it."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    precision: Literal["auto", "fp32", "bf16", "int8"] = "fp32"
    """What to compute in. In bf16 single images get another answer than in fp32; auto is bf16 in the fast form where
    the hardware computes in it, and else fp32. int8 is taken where it is faster and agrees on the first images, else
    auto is."""
    optimize: bool = True
    """Let the model's fast form answer, where it is faster here and agrees on the first images."""
    worst: int = 24
    """How many of the worst errors to keep with their images."""
    rows: int = 20
    """Classes to print; of more, those that are found worst."""
    out: Path | None = None
    """JSON file to write everything to."""
    report: Path | None = None
    """HTML page to write: one file that opens anywhere, without a network."""
    json: bool = False
    """Print everything as JSON instead of tables."""

    def run(self) -> int:
        """Evaluate, print, write, and return the exit code."""
        from vitrail.atomic_io import refuse_unwritable
        from vitrail.cli.progress import picture_bar
        from vitrail.lab.evaluate import evaluate, open_split
        from vitrail.lab.formatting import summary_text
        from vitrail.lab.model_loading import find_model
        from vitrail.training.host_memory import disable_malloc_trim

        disable_malloc_trim()  # as in `vitrail predict`
        for path in (self.out, self.report):
            if path is not None:
                refuse_unwritable(path)
        pictures = open_split(self.data, self.split)
        model = find_model(self.model, self.weights, self.device)
        with picture_bar("evaluate", len(pictures)) as tell:
            result = evaluate(
                model,
                pictures,
                batch=self.batch,
                labels=self.labels,
                worst=self.worst,
                progress=lambda done, _: tell(done),
                precision=self.precision,
                optimize=self.optimize,
                told=lambda form: print(form, file=sys.stderr),
            )
        if self.json:
            import json

            print(json.dumps(result.to_dict()))
        else:
            self._print(result)
            print(f"\n{summary_text(result)}")
        self._write(result, model)
        return 0

    def _print(self, result: "Evaluation") -> None:
        from vitrail.lab.formatting import arithmetic, duration, percent

        calibration = result.calibration
        low, high = percent(result.top1.low), percent(result.top1.high)
        speed = f"{result.images_per_second:,.0f} img/s on {result.device}, batch {result.batch}"
        rows = [["top-1", percent(result.top1.value, 2), f"95% interval {low} to {high}"]]
        if result.top5 is not None:
            rows.append(["top-5", percent(result.top5.value, 2), ""])
        rows += [
            [
                "macro F1",
                percent(result.macro_f1, 2),
                f"mean over {sum(bool(each.support) for each in result.classes)} classes",
            ],
            ["calibration error", percent(calibration.ece, 2), f"mean confidence {percent(calibration.confidence)}"],
            ["log-likelihood", f"{-calibration.nll:.4f}", "mean over pictures, in nats"],
            ["Brier score", f"{calibration.brier:.4f}", "0 is best, 2 is worst"],
            ["pictures", f"{result.samples:,}", f"{result.data}, in {duration(result.seconds)} ({speed})"],
            ["arithmetic", result.precision, arithmetic(result).partition(" ")[2]],
        ]
        print_table(["measure", "value", ""], rows, right=["value"])
        print()
        met = sorted(result.met, key=lambda each: 2.0 if each.f1.value is None else each.f1.value)
        columns = ["class", "pictures", "recall", "precision", "F1", "95% of F1"]
        print_table(columns, [_row(each) for each in met[: self.rows]], right=columns[1:])
        if len(met) > self.rows:
            print(f"({len(met) - self.rows} classes with a higher F1 are not shown; --rows {len(met)} shows all)")
        confused = result.most_confused(5)
        if confused:
            print()
            print_table(
                ["true class", "said to be", "times"], [[t, s, str(n)] for t, s, n in confused], right=["times"]
            )

    def _write(self, result: "Evaluation", model: object) -> None:
        if self.out is not None:
            print(f"figures {result.save(self.out)}", file=sys.stderr)
        if self.report is not None:
            from vitrail.lab.report import write_page
            from vitrail.lab.run_folder import Run

            run = Run(name=result.model, evaluation=result, command=_command())
            print(f"report  {write_page(run, self.report, model)}", file=sys.stderr)


def _row(each: "ClassFigures") -> list[str]:
    from vitrail.lab.formatting import percent

    shares = [percent(rate.value) for rate in (each.recall, each.precision, each.f1)]
    interval = "" if each.f1.value is None else f"{100 * each.f1.low:.0f}–{100 * each.f1.high:.0f}"
    return [each.label, str(each.support), *shares, interval]


def _command() -> str:
    from shlex import join

    return join(["vitrail", *sys.argv[1:]])
