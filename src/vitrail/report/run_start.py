"""The weights that runs began from: a soup averages runs that began from the same ones."""

from collections.abc import Sequence
from filecmp import cmp
from pathlib import Path
from typing import NamedTuple

from vitrail.errors import VitrailError
from vitrail.report.run_folder import read_run
from vitrail.training.run_dir import CONFIG
from vitrail.weights.folder import model_folder


class RunStart(NamedTuple):
    """The weights that a run began from.

    Args:
        weights: what `--weights` named, or None for random weights.
        seed: seed of the random weights.
    """

    weights: str | None
    seed: int

    def __str__(self) -> str:
        return f"random weights of seed {self.seed}" if self.weights is None else self.weights


def read_start(folder: Path) -> RunStart | None:
    """Return the start of a run, or of the run of a checkpoint in its `weights`; None without a config."""
    weights = folder.resolve().parent
    run = weights.parent if weights.name == "weights" else folder
    if not (run / CONFIG).is_file():
        return None
    config = read_run(run).config
    return RunStart(config.get("weights"), config.get("seed", 0))


def same_start(one: RunStart, other: RunStart) -> bool | None:
    """Return whether two runs began from the same weights; None if it is not known.

    Example:
        >>> same_start(RunStart(None, 0), RunStart(None, 1)), same_start(RunStart("a.pt", 0), RunStart("a.pt", 1))
        (False, True)
        >>> same_start(RunStart("a.pt", 0), RunStart(None, 0)), same_start(RunStart("a.pt", 0), RunStart("b.pt", 0))
        (False, None)
    """
    if one.weights is None or other.weights is None:
        return one == other
    return one.weights == other.weights or _same_files(one.weights, other.weights)


def check_starts(folders: Sequence[Path]) -> list[str]:
    """Check that runs began from the same weights; a run that began from the first model is one of them too.

    Returns:
        The folders for which it is not known.

    Raises:
        VitrailError: two runs began from different weights.
    """
    starts = [read_start(folder) for folder in folders]
    unknown = []
    for folder, start in zip(folders[1:], starts[1:], strict=True):
        same = _related(folders[0], starts[0], folder, start)
        if same is None:
            unknown.append(str(folder))
        if same is False:
            raise VitrailError(
                f"{folders[0]} began from {starts[0]}, and {folder} from {start}: their mean is no trained model.\n"
                "Average runs that began from the same weights: train them with the same --weights, or the same --seed."
            )
    return unknown


def _related(first: Path, start: RunStart | None, folder: Path, other: RunStart | None) -> bool | None:
    """Return whether two models began from the same weights, or one from the other; None if it is not known."""
    for model, begun in ((first, other), (folder, start)):
        if begun is not None and begun.weights is not None and _same_files(str(model), begun.weights):
            return True
    return None if start is None or other is None else same_start(start, other)


def _same_files(one: str, other: str) -> bool | None:
    """Return whether two checkpoints have the same content; None if one of them is not here."""
    files = [_file(Path(model_folder(each))) for each in (one, other)]
    return cmp(*files, shallow=False) if all(file.is_file() for file in files) else None


def _file(place: Path) -> Path:
    return place / "model.safetensors" if place.is_dir() else place
