"""`vitrail predict`: predictions of a trained model."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os.path import abspath, commonpath, dirname, relpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from vitrail.cli.task_flags import join_options, task_of_model
from vitrail.errors import DataError, VitrailError
from vitrail.tasks import find_options

if TYPE_CHECKING:
    from vitrail.cli.writers import Output
    from vitrail.tasks.task import Task

EXAMPLES = """
vitrail predict runs/classify/digits picture.png
vitrail predict vit_tiny_patch16_224 --weights vit_tiny.pt 'photos/*.jpg' --top 3
vitrail predict MODEL photos/ --csv > labels.csv
vitrail predict MODEL photos/ --precision auto   # faster if the hardware computes in bf16
vitrail predict MODEL photos/ --save drawn/   # masks and drawings, for tasks that have them
vitrail predict MODEL photos/ --out labels.jsonl   # interrupted, it continues when started again
"""


def bind(words: Sequence[str]) -> type:
    """Return the class of the verb for the task of the model among the words."""
    return join_options(PredictVerb, find_options(task_of_model(words)).PredictOptions)


@dataclass(frozen=True)
class PredictVerb:
    """Predict: class names for images, or what else the model's task is.

    Folders are searched recursively, and any number of inputs is read in little memory. An input that cannot be read
    does not end the job: it gets its reason in place of a prediction, and the exit code is 3.
    """

    model: Positional[str]
    """A model folder, a run folder, a name in the catalogue (with --weights), or hf:org/name@revision."""
    inputs: Positional[tuple[str, ...]] = ()
    """Files, folders, or patterns such as 'photos/*.jpg'; for models of text, files with a text per line, - reads
    standard input."""
    weights: str | None = None
    """A checkpoint, if the model is a name in the catalogue."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    out: Path | None = None
    """File to write to, .jsonl, .json or .csv. A .jsonl file is written during the job, and a
    restarted job predicts only the missing images."""
    save: Path | None = None
    """Folder for the files of the predictions, such as masks and drawings; subfolders are those of the inputs."""
    json: bool = False
    """Print one JSON object per line instead of a table."""
    csv: bool = False
    """Print CSV instead of a table."""

    def run(self) -> int:
        """Predict, print or write, and return the exit code."""
        from vitrail.cli.writers import check_output, open_output
        from vitrail.inference.jsonl import job_of
        from vitrail.inference.model_loading import find_model
        from vitrail.machine.host_memory import disable_malloc_trim
        from vitrail.tasks import find_task

        if self.json and self.csv:
            raise VitrailError("--json and --csv are two ways to print; choose one.")
        check_output(self.out)
        disable_malloc_trim()  # nothing else runs here, and a plain model spends a quarter of its time on new pages
        task = find_task(task_of_model([self.model]))
        options: Any = self
        inputs = task.collect(options.sources(self.inputs))
        model = find_model(self.model, self.weights, self.device)
        predictor = task.predictor(model, options, None)
        output = open_output(self.out, job_of(model, predictor), predictor, len(inputs), self.json, self.csv)
        failed = self._work(task, model, inputs, output)
        for result in failed[:5]:
            print(f"error: {result}", file=sys.stderr)
        if failed:
            print(f"{len(failed)} of {len(inputs)} inputs could not be read.", file=sys.stderr)
        return DataError.exit_code if failed else 0

    def _work(self, task: "Task", model: Any, inputs: Sequence[Any], output: "Output") -> list[Any]:
        """Predict what the output does not hold yet, and return the failures."""
        from vitrail.cli.progress import progress_bar
        from vitrail.inference.predict import predictions

        def notify(choice: Any) -> None:
            output.precision = choice.precision
            print(choice, file=sys.stderr)

        todo = [item for item in inputs if item.name not in output.done]
        failed, began, files, done = [], time.monotonic(), 0, 0
        root = commonpath([dirname(abspath(item.name)) for item in inputs]) if len(inputs) else ""
        try:
            options: Any = replace(self, precision=self._precision(output))  # pyright: ignore[reportCallIssue]
            predictor = task.predictor(model, options, len(todo), notify)
            with progress_bar("predict", len(todo)) as show:
                if hasattr(predictor, "on_part"):  # one input can take minutes
                    predictor.on_part = lambda share: show(done + share)  # pyright: ignore[reportAttributeAccessIssue]
                for count, result in enumerate(predictions(predictor, todo, options.batch), start=1):
                    if self.save is not None:
                        files += len(result.save(self.save / relpath(dirname(abspath(result.path)), root)))
                    output.add(result)
                    done = count
                    show(done)
                    if result.error is not None:
                        failed.append(result)
            output.finish(item.name for item in inputs)
        finally:
            output.close()
        if self.save is not None:
            print(f"{self.save}: {files} files" if files else "These predictions have no files.", file=sys.stderr)
        if self.out is not None:
            kept = f", {len(inputs) - len(todo)} were there already" if len(todo) < len(inputs) else ""
            print(f"{self.out}: {len(todo)} predictions in {time.monotonic() - began:.1f} s{kept}", file=sys.stderr)
        return failed

    def _precision(self, output: "Output") -> str:
        """Return the compute precision: that of the interrupted job, so that its predictions have one precision."""
        begun, asked = output.precision, getattr(self, "precision", None)
        if begun is None:
            return asked or "fp32"
        if asked != begun and asked in ("fp32", "bf16"):
            raise VitrailError(
                f"{self.out} holds predictions computed in {begun}, and --precision is {asked}.\n"
                f"Leave --precision out to continue in {begun}, or choose another --out."
            )
        return begun if begun in ("int8", "bf16") else "fp32"
