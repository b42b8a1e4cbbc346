"""`vitrail predict`: name what is in images."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from vitrail.errors import DataError, VitrailError

if TYPE_CHECKING:
    from vitrail.cli.writers import Output
    from vitrail.lab.form import Form, Precision
    from vitrail.lab.image_sources import Picture
    from vitrail.tasks.classification import Classification

EXAMPLES = """
vitrail predict runs/classify/digits picture.png
vitrail predict vit_tiny_patch16_224 --weights vit_tiny.pt 'photos/*.jpg' --top 3
vitrail predict MODEL photos/ --csv > labels.csv
vitrail predict MODEL photos/ --precision auto   # sooner where the hardware computes in bf16
vitrail predict MODEL photos/ --out labels.jsonl   # stop it, start it again: it goes on where it was
"""


@dataclass(frozen=True)
class Predict:
    """Name what is in images.

    Folders are searched to their depths, and any number of images is read in little memory. An image that cannot be
    read does not end the job: it gets its reason in place of an answer, and the exit code is 3.
    """

    model: Positional[str]
    """A model folder, a run folder, a name in the catalogue (with --weights), or hf:org/name@revision."""
    pictures: Positional[tuple[str, ...]]
    """Images, folders of images, or patterns such as 'photos/*.jpg'."""
    weights: str | None = None
    """A checkpoint, where the model is a name in the catalogue."""
    labels: Path | None = None
    """Text file with a class name a line, where the model has none or others are wanted."""
    top: int = 5
    """How many classes to name for each image."""
    batch: int = 32
    """Images that pass the model together; the answers do not depend on it."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    precision: Literal["auto", "fp32", "bf16", "int8"] | None = None
    """What to compute in: fp32 where nothing is said, or what a job that is started again was begun with. auto is bf16
    in the fast form where that is faster here, and else fp32; int8 is taken where it is faster and agrees on the first
    images, else auto is."""
    optimize: bool = True
    """Let the model's fast form answer, where it is faster here and agrees on the first images."""
    draft: bool = False
    """Decode large JPEGs at a smaller scale, never below three times the size that is needed: sooner, but of 100
    answers 1 to 11 change."""
    out: Path | None = None
    """File to write to, .jsonl, .json or .csv. A .jsonl file is written as the job goes, and a job that is
    started again does only what is missing in it."""
    json: bool = False
    """Print one JSON object a line instead of a table."""
    csv: bool = False
    """Print CSV instead of a table."""

    def run(self) -> int:
        """Predict, print or write, and return the exit code."""
        from vitrail.cli.writers import open_output, refuse_output
        from vitrail.lab.image_sources import find_pictures
        from vitrail.lab.jsonl import job_of
        from vitrail.lab.model_loading import class_names, find_model, read_names
        from vitrail.training.host_memory import disable_malloc_trim

        if self.json and self.csv:
            raise VitrailError("--json and --csv are two ways to print; choose one.")
        if self.top < 1 or self.batch < 1:
            raise VitrailError(f"--top is {self.top} and --batch is {self.batch}; both must be at least 1.")
        refuse_output(self.out)
        names = None if self.labels is None else read_names(self.labels)
        disable_malloc_trim()  # a plain model spends a quarter of its time on new pages otherwise
        pictures = find_pictures(self.pictures)
        model = find_model(self.model, self.weights, self.device)
        class_names(model, model.config.num_classes, names)  # refuses names that do not fit, before the work
        job = job_of(model, names or model.labels, self.top, self.draft)
        output = open_output(self.out, job, len(pictures), self.top, self.json, self.csv)
        failed = self._work(model, pictures, names, output)
        for result in failed[:5]:
            print(f"error: {result}", file=sys.stderr)
        if failed:
            print(f"{len(failed)} of {len(pictures)} pictures could not be read.", file=sys.stderr)
        return DataError.exit_code if failed else 0

    def _work(
        self, model: Any, pictures: "Sequence[Picture]", names: Sequence[str] | None, output: "Output"
    ) -> "list[Classification]":
        """Answer what has no answer yet, and return the failures."""
        from vitrail.cli.progress import picture_bar
        from vitrail.lab.predict import predictions

        todo = [picture for picture in pictures if picture.name not in output.done]
        failed, began = [], time.monotonic()
        try:
            precision = self._precision(output)
            with picture_bar("predict", len(todo)) as tell:
                answers = predictions(
                    model,
                    todo,
                    top=self.top,
                    batch=self.batch,
                    labels=names,
                    precision=precision,
                    optimize=self.optimize,
                    draft=self.draft,
                    told=lambda form: self._tell(form, output),
                )
                for count, result in enumerate(answers, start=1):
                    output.add(result)
                    tell(count)
                    if result.error is not None:
                        failed.append(result)
            output.finish(picture.name for picture in pictures)
        finally:
            output.close()
        if self.out is not None:
            kept = f", {len(pictures) - len(todo)} were there already" if len(todo) < len(pictures) else ""
            print(f"{self.out}: {len(todo)} pictures in {time.monotonic() - began:.1f} s{kept}", file=sys.stderr)
        return failed

    def _precision(self, output: "Output") -> "Precision":
        """Return what to compute in: what a job was begun with, so that its answers have one precision."""
        begun = output.precision
        if begun is None:
            return self.precision or "fp32"
        if self.precision != begun and self.precision in ("fp32", "bf16"):
            raise VitrailError(
                f"{self.out} holds answers computed in {begun}, and --precision is {self.precision}.\n"
                f"Leave --precision out to go on in {begun}, or choose another --out."
            )
        return "int8" if begun == "int8" else "bf16" if begun == "bf16" else "fp32"

    def _tell(self, form: "Form", output: "Output") -> None:
        output.precision = form.precision
        print(form, file=sys.stderr)
