"""`vitrail restore`: super-resolution, denoising and JPEG artifact removal of images."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from vitrail.cli.predict import PredictVerb
from vitrail.cli.task_flags import join_options, task_of_model
from vitrail.errors import VitrailError
from vitrail.export.metadata import is_exported
from vitrail.tasks import find_options

EXAMPLES = """
vitrail restore photo.png --model swinir_classical_x2 --weights swinir_x2.pth
vitrail restore 'scans/*.tif' --model runs/restore/scans --tiling fast --memory 0.5
vitrail restore photos/ --weights any_swinir.pth --out restored/   # interrupted, it continues when started again
"""

TASK = "restore"
RECORD = "restored.jsonl"
"""File in the output folder with a line for each image that is done."""


def bind(words: Sequence[str]) -> type:
    """Return the class of the verb, with the options of restoration."""
    return join_options(RestoreVerb, find_options(TASK).PredictOptions)


@dataclass(frozen=True)
class RestoreVerb:
    """Restore images: larger, without noise or JPEG artifacts, as the model was trained for.

    Images of any size run in tiles. 16 bits, alpha, colour profile and metadata are kept; results are PNG files. A job
    that is started again restores only the missing images, told by their names, even if files changed. An image that
    cannot be read is named, the others are restored, and the exit code is 3.
    """

    inputs: Positional[tuple[str, ...]] = ()
    """Files, folders, or patterns such as 'photos/*.png'."""
    model: str = ""
    """A model folder, a run folder, an exported file, or a name in the catalogue; by default that of the weights."""
    weights: str | None = None
    """A checkpoint: of the authors, of Hugging Face, or a model folder; or a file of vitrail export."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    out: Path = Path("restored")
    """Folder of the results; subfolders are those of the inputs."""
    json: bool = False
    """Print one JSON object per line to follow the job, instead of writing them to restored.jsonl."""

    def run(self) -> int:
        """Restore, write, and return the exit code."""
        from vitrail.atomic_io import check_writable_folder, make_folder
        from vitrail.tasks import find_task

        if not self.inputs:
            raise VitrailError("Nothing to restore. Give files or folders: vitrail restore photo.png --weights FILE")
        model, weights = self._source()
        if task_of_model([model]) != TASK:
            raise VitrailError(f"{model} does not restore images. See those that do: vitrail models 'swin*ir*'")
        check_writable_folder(self.out)
        make_folder(self.out)
        _check_places([item.name for item in find_task(TASK).collect(self.inputs)], self.out)
        kind: Any = join_options(PredictVerb, find_options(TASK).PredictOptions)
        shared = {field.name: getattr(self, field.name) for field in fields(find_options(TASK).PredictOptions)}
        place = {"out": None if self.json else self.out / RECORD, "save": self.out, "json": self.json}
        return kind(model=model, inputs=self.inputs, weights=weights, device=self.device, **place, **shared).run()

    def _source(self) -> tuple[str, str | None]:
        """Return the model and its checkpoint: an exported file is the model, a checkpoint determines its variant."""
        from vitrail.weights.from_checkpoint import from_checkpoint

        if self.model:
            return self.model, self.weights
        if self.weights is None:
            raise VitrailError("No model. Give --weights FILE, or --model with the folder of a trained model.")
        if is_exported(self.weights):
            return self.weights, None
        return from_checkpoint(self.weights).model.variant, self.weights


def _check_places(names: Sequence[str], out: Path) -> None:
    """Refuse a job whose results would be taken for inputs when it is started again."""
    for name in names:
        if out.resolve() in (Path(name).parent / "file").resolve().parents:
            raise VitrailError(f"{name} is in the output folder {out}. Choose another folder: --out FOLDER")
