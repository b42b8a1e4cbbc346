"""`vitrail predict`: predictions of a trained model."""

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from os.path import abspath, commonpath, dirname, isfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from vitrail.cli.task_flags import join_options, task_of_model
from vitrail.errors import DataError, VitrailError
from vitrail.tasks import find_options

if TYPE_CHECKING:
    from vitrail.cli.writers import Output
    from vitrail.tasks.task import Task

EXAMPLES = """
vitrail predict runs/classify/digits image.png
vitrail predict vit_tiny_patch16_224 --weights vit_tiny.pt 'photos/*.jpg' --top 3
vitrail predict MODEL photos/ --csv > labels.csv
vitrail predict MODEL photos/ --precision auto   # faster if the hardware computes in bf16
vitrail predict MODEL photos/ --save drawn/   # masks and drawings, for tasks that have them
vitrail predict MODEL clip.mp4 --fps 2   # frames of a video; camera:0 --frames 10 of a camera
vitrail predict MODEL images/*.parquet --engine ray --out labels.jsonl   # on a Ray cluster
vitrail predict MODEL photos/ --out labels.jsonl   # interrupted, it continues when started again
"""


def bind(words: Sequence[str]) -> type:
    """Return the class of the verb for the task of the model among the words."""
    return join_options(PredictVerb, find_options(task_of_model(words)).PredictOptions)


@dataclass(frozen=True)
class PredictVerb:
    """Predict: class names for images, or the result of the model's task.

    Folders are searched recursively, but not for videos, which are named; any number of inputs is read in little
    memory. An input that cannot be read does not end the job: it gets its reason in place of a prediction, and the exit
    code is 3.
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
    restarted job predicts only the inputs whose names it does not hold, even if a file changed: to predict again,
    remove it or choose another."""
    save: Path | None = None
    """Folder for the files of the predictions, such as masks and drawings; subfolders are those of the inputs."""
    fps: float = 0.0
    """Frames per second of videos (clip.mp4) and cameras (camera:0); 0 takes all frames of a video, one a second of a
    camera."""
    frames: int = 0
    """Most frames of each video or camera; 0 takes all of a video, one of a camera."""
    engine: Literal["local", "ray"] = "local"
    """local: this machine; ray: the machines of a Ray cluster (RAY_ADDRESS, else this one), for folders and parquet
    files of millions of images. A row without a name is called by its file and number: photos.parquet#0."""
    workers: int = 0
    """Models at work in the Ray cluster; default: one per GPU, else one per machine."""
    json: bool = False
    """Print one JSON object per line instead of a table."""
    csv: bool = False
    """Print CSV instead of a table."""

    def run(self) -> int:
        """Predict, print or write, and return the exit code."""
        from vitrail.cli.saved_files import check_saved_files
        from vitrail.cli.writers import check_output, open_output
        from vitrail.inference.jsonl import job_of
        from vitrail.inference.model_loading import find_model
        from vitrail.machine.host_memory import disable_malloc_trim
        from vitrail.parts.model import ImageModel
        from vitrail.tasks import find_task
        from vitrail.tasks.image_sources import SourceImage
        from vitrail.tasks.video import left_out_note, with_frames

        if self.json and self.csv:
            raise VitrailError("--json and --csv are two ways to print; choose one.")
        self._check_engine()
        check_output(self.out)
        disable_malloc_trim()  # nothing else runs here, and a plain model spends a quarter of its time on new pages
        task = find_task(task_of_model([self.model]))
        options: Any = self
        words, tables = self._tables()
        inputs = task.collect(with_frames(options.sources(words), self.fps, self.frames)) if words or not tables else []
        model = find_model(self.model, self.weights, self.device)
        if tables and not isinstance(model, ImageModel):
            raise VitrailError(f"{tables[0]} is read as a table of images, and {self.model} takes no images.")
        predictor = task.predictor(model, options, None)
        if len(inputs) and isinstance(inputs[0], SourceImage) and (note := left_out_note(words)):
            print(note, file=sys.stderr)
        count = len(inputs) if self.engine == "local" else sys.maxsize  # results of a cluster are printed line by line
        root = commonpath([dirname(abspath(item.name)) for item in inputs]) if len(inputs) else ""
        saved_name: Any = getattr(predictor, "saved_name", None)
        if self.save is not None and saved_name is not None:
            check_saved_files((item.name for item in inputs), saved_name, self.save, root)
        output = open_output(self.out, job_of(model, predictor), predictor, count, self.json, self.csv)
        failed = (
            self._work(task, model, inputs, root, output)
            if self.engine == "local"
            else self._work_remotely(task, inputs, tables, output)
        )
        for result in failed[:5]:
            print(f"error: {result}", file=sys.stderr)
        if failed:
            print(f"{len(failed)}{'' if tables else f' of {len(inputs)}'} inputs could not be read.", file=sys.stderr)
        return DataError.exit_code if failed else 0

    def _work(self, task: "Task", model: Any, inputs: Sequence[Any], root: str, output: "Output") -> list[Any]:
        """Predict the inputs that are missing in the output, and return the failures."""
        from vitrail.atomic_io import remove_leftovers
        from vitrail.cli.progress import progress_bar
        from vitrail.cli.saved_files import saved_folder
        from vitrail.inference.jsonl import ResultFile
        from vitrail.inference.predict import predictions

        rows: list[dict[str, Any]] = []

        def notify(choice: Any) -> None:
            output.precision = choice.precision
            print(choice, file=sys.stderr)

        todo = [item for item in inputs if item.name not in output.done]
        failed, began, files, done = [], time.monotonic(), 0, 0
        if self.save is not None:
            remove_leftovers(self.save)
        try:
            options: Any = replace(self, precision=self._precision(output))  # pyright: ignore[reportCallIssue]
            predictor = task.predictor(model, options, len(todo), notify)
            gathers = (
                self.save is not None and hasattr(predictor, "files_of_all") and not isinstance(output, ResultFile)
            )
            with progress_bar("predict", len(todo)) as show:
                if hasattr(predictor, "on_part"):  # one input can take minutes
                    predictor.on_part = lambda share: show(done + share)  # pyright: ignore[reportAttributeAccessIssue]
                for count, result in enumerate(predictions(predictor, todo, options.batch), start=1):
                    if self.save is not None:
                        files += len(result.save(saved_folder(self.save, result.path, root)))
                    output.add(result)
                    if gathers:
                        rows.append(result.to_dict())
                    done = count
                    show(done)
                    if result.error is not None:
                        failed.append(result)
            output.finish(item.name for item in inputs)
            files += self._write_files_of_all(
                predictor, output.rows() if isinstance(output, ResultFile) else rows, root
            )
        finally:
            output.close()
        if self.save is not None:
            print(f"{self.save}: {files} files" if files else "These predictions have no files.", file=sys.stderr)
        self._print_counts(len(todo), len(inputs) - len(todo), began)
        return failed

    def _print_counts(self, count: int, kept: int, began: float) -> None:
        """Print the numbers of predictions that were written to `out`, and of those that were there."""
        from vitrail.cli.writers import kept_note

        if self.out is not None:
            took = f"{time.monotonic() - began:.1f} s"
            print(f"{self.out}: {count} predictions in {took}{kept_note(kept, self.out)}", file=sys.stderr)

    def _write_files_of_all(self, predictor: Any, rows: Iterable[dict[str, Any]], root: str) -> int:
        """Write the files about all results that a task has, and return their number."""
        from vitrail.atomic_io import write_file

        if self.save is None or not hasattr(predictor, "files_of_all"):
            return 0
        self.save.mkdir(parents=True, exist_ok=True)
        found: dict[str, bytes] = predictor.files_of_all(rows, root)
        for name, content in found.items():
            write_file(self.save / name, content)
        return len(found)

    def _check_engine(self) -> None:
        """Refuse flags that the engine does not take, before anything is read."""
        if self.fps < 0 or self.frames < 0 or self.workers < 0:
            raise VitrailError("--fps, --frames and --workers are numbers from 0 up.")
        if self.engine == "local" and self.workers:
            raise VitrailError("--workers belongs to --engine ray.")
        if self.engine == "local":
            return
        from vitrail.inference.ray_engine import check_ray

        if self.save is not None:
            raise VitrailError("--engine ray writes no files of predictions: leave --save out.")
        if Path(self.model).exists():
            object.__setattr__(self, "model", abspath(self.model))  # workers run in folders of their own
        check_ray()

    def _tables(self) -> tuple[list[str], list[str]]:
        """Return the inputs that are files or folders, and those that are parquet tables."""
        remote = self.engine == "ray"
        tables = [word for word in self.inputs if word.endswith(".parquet") or (remote and "://" in word)]
        if tables and self.engine == "local":
            raise VitrailError(f"{tables[0]} is read by --engine ray (pip install 'ray[data]' aiohttp).")
        return [word for word in self.inputs if word not in tables], tables

    def _work_remotely(self, task: "Task", inputs: Sequence[Any], tables: list[str], output: "Output") -> list[Any]:
        """Predict the inputs that are missing in the output on a Ray cluster, and return the failures."""
        from vitrail.cli.progress import progress_bar
        from vitrail.inference.ray_engine import RayJob, option_values, ray_predictions

        precision = self._precision(output)
        output.precision = precision if precision in ("fp32", "bf16", "int8") else "fp32"
        values = {**option_values(task.name, self), "precision": precision}
        job = RayJob(self.model, self.weights, self.device, values)
        wrong = next((item.name for item in inputs if not isfile(item.name)), None)
        if wrong is not None:
            raise VitrailError(f"--engine ray reads image files and parquet tables; {wrong} is neither.")
        todo = [abspath(item.name) for item in inputs if item.name not in output.done]
        back = {abspath(item.name): item.name for item in inputs}
        batch: int = getattr(self, "batch", 32)
        failed, began, added, held = [], time.monotonic(), 0, len(inputs) - len(todo)
        try:
            with progress_bar("predict", max(len(todo), 1)) as show:
                found = ray_predictions(job, todo, tables, batch, self.workers)
                for count, result in enumerate(found, start=1):
                    result = result.renamed(back.get(result.path, result.path))
                    if result.path in output.done:
                        held += 1
                        continue
                    output.add(result)  # pyright: ignore[reportArgumentType]
                    added += 1
                    show(min(count, max(len(todo), 1)))
                    if result.error is not None:
                        failed.append(result)
            output.finish(item.name for item in inputs)
        finally:
            output.close()
        self._print_counts(added, held, began)
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
