"""`vitrail evaluate`: evaluation of a trained model."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from vitrail.cli.table import print_table
from vitrail.cli.task_flags import join_options, task_of_model
from vitrail.errors import DataError
from vitrail.tasks import find_options, open_evaluation

if TYPE_CHECKING:
    from vitrail.tasks.results import Evaluation

EXAMPLES = """
vitrail evaluate runs/classify/digits digits
vitrail evaluate runs/classify/flowers flowers/ --split val
vitrail evaluate runs/classify/flowers new_flowers/ --split all --report new.html --out new.json
vitrail evaluate vit_tiny_patch16_224 imagenet_val/ --weights vit_tiny.pt --split all
"""


def bind(words: Sequence[str]) -> type:
    """Return the class of the verb for the task of the model among the words."""
    return join_options(EvaluateVerb, find_options(task_of_model(words)).EvaluateOptions)


@dataclass(frozen=True)
class EvaluateVerb:
    """Evaluate a model on a data set. Of a classifier: top-1, figures of each class, calibration, worst errors.

    Every sample counts once, whatever the batch.
    """

    model: Positional[str]
    """A model folder, a run folder, a name in the catalogue (with --weights), or hf:org/name@revision."""
    data: Positional[str]
    """digits, a folder, a .csv or .jsonl table, a .tar.gz, or torchvision:NAME@FOLDER."""
    split: Literal["auto", "train", "val", "test", "all"] = "auto"
    """Split to evaluate; auto takes test, or val (held out as in training) if there is none; all for an unsplit data
    set."""
    weights: str | None = None
    """A checkpoint, if the model is a name in the catalogue."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    rows: int = 20
    """Most rows of a table."""
    out: Path | None = None
    """JSON file to write everything to."""
    report: Path | None = None
    """HTML page to write: one file that opens anywhere, without a network."""
    json: bool = False
    """Print everything as JSON instead of tables."""

    def run(self) -> int:
        """Evaluate, print, write, and return the exit code."""
        from vitrail.atomic_io import check_writable
        from vitrail.cli.progress import progress_bar
        from vitrail.inference.model_loading import find_model, task_of
        from vitrail.machine.host_memory import disable_malloc_trim
        from vitrail.tasks import find_task
        from vitrail.tasks.skipped import skip_hint

        disable_malloc_trim()  # as in `vitrail predict`
        for path in (self.out, self.report):
            if path is not None:
                check_writable(path)
        task = find_task(task_of_model([self.model]))
        options: Any = self
        samples = self._open(task)
        model = find_model(self.model, self.weights, self.device)
        assert task_of(model) == task.name
        with progress_bar("evaluate", len(samples)) as show, skip_hint(options.bad):
            result = task.evaluate(
                model,
                samples,
                options,
                lambda choice: print(choice, file=sys.stderr),
                lambda done, _: show(done),
            )
        if self.json:
            import json

            print(json.dumps(result.to_dict()))
        else:
            for table in result.tables(self.rows):
                print_table(table.columns, table.rows, right=table.right)
                print("\n".join(table.notes), end="\n" * (1 + bool(table.notes)))
            print(result.summary())
        self._write(result, model)
        return 0

    def _open(self, task: Any) -> Any:
        """Open the split that `split` names; auto is test, or else val."""
        options: Any = self
        if self.split != "auto":
            return open_evaluation(task, self.data, self.split, options)
        try:
            return open_evaluation(task, self.data, "test", options)
        except DataError as error:
            if "no images for test" not in str(error) and "splits:" not in str(error):
                raise
        samples = open_evaluation(task, self.data, "val", options)
        print("note: there is no test split; val is evaluated (--split chooses)", file=sys.stderr)
        return samples

    def _write(self, result: "Evaluation", model: Any) -> None:
        from vitrail.tasks.evaluation_file import save_evaluation

        if self.out is not None:
            print(f"figures {save_evaluation(result, self.out)}", file=sys.stderr)
        if self.report is not None:
            from vitrail.report.html_page import write_page
            from vitrail.report.run_folder import RecordedRun

            run = RecordedRun(name=result.model, evaluation=result, command=_command())
            print(f"report  {write_page(run, self.report, model)}", file=sys.stderr)


def _command() -> str:
    from shlex import join

    return join(["vitrail", *sys.argv[1:]])
