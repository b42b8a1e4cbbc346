"""Export a model to a file, and verify the file."""

from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from vitrail.edits.quantize import with_dense_weights
from vitrail.errors import VitrailError, unknown
from vitrail.export.described import describe
from vitrail.export.formats import write_program
from vitrail.export.libraries import check_libraries
from vitrail.export.metadata import SUFFIXES
from vitrail.export.program import Program, export_program
from vitrail.export.runtime import open_runtime
from vitrail.export.verify import Compared, verify
from vitrail.parts.exported_file import check_layers
from vitrail.parts.model import Model

MOST_PLANNED = 16
"""Largest batch of a runtime that plans its memory when the file is written (ExecuTorch)."""


class Exported(NamedTuple):
    """An exported and verified file.

    Args:
        files: the files written.
        sizes: `any`, or the only size, of each dimension besides the batch.
        reason: why sizes are fixed; empty if they are not.
        compared: comparisons with the model.
        seconds: duration of each phase: `trace`, `write`, `verify`.
    """

    files: list[Path]
    sizes: dict[str, int | str]
    reason: str
    compared: list[Compared]
    seconds: dict[str, float]

    def __str__(self) -> str:
        axes = ", ".join(f"{size} {name}" for name, size in self.sizes.items())
        size = f"{axes}{f' ({self.reason})' if self.reason else ''}"
        worst = max(each.error for each in self.compared)
        checked = f"{len(self.compared)} batches and sizes agree with the model, largest error {worst:.1e}"
        names = ", ".join(str(path) for path in self.files)
        took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())
        return f"{names}: any batch, {size}\n{checked}; {took}"


def export(model: Model, target: str, path: str | Path, sizes: str = "auto") -> Exported:
    """Export a model, and compare the file with the model in its own runtime.

    Args:
        model: a model of a task that has programs, in evaluation mode on a CPU.
        target: `onnx`, `openvino`, `pt2`, `executorch` or `triton`.
        path: file to write; the target's suffix is added if it has none. For `triton` a folder.
        sizes: `auto`, `any` or `fixed`; see `export_program`.

    Raises:
        VitrailError: models of this task have no program, the target is unknown, a library is missing, or the file
            differs from the model; such a file is removed.

    Example:
        >>> import tempfile, vitrail
        >>> model = vitrail.create_model("vit_tiny_patch16_224", depth=1, num_classes=3, image_size=32).eval()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export(model, "pt2", f"{folder}/vit.pt2").sizes
        {'height': 'any', 'width': 'any'}
    """
    check_layers(model, "its layers are needed to export it again")
    path = _checked(target, Path(path), sizes)
    model = with_dense_weights(model).eval()
    description = describe(model)
    started = perf_counter()
    program = export_program(model, sizes, MOST_PLANNED if target == "executorch" else None, plain=target == "pt2")
    traced = perf_counter()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        files, compared, wrote = _write(program, description, target, path)
    except VitrailError as error:
        if sizes != "auto" or not program.any_size or program.spec.grows:
            raise
        program = export_program(model, "fixed")._replace(reason=str(error).replace("\n", "; "))
        files, compared, wrote = _write(program, description, target, path)
    seconds = {"trace": traced - started, "write": wrote - traced, "verify": perf_counter() - wrote}
    return Exported(files, program.sizes, program.reason, compared, seconds)


def _checked(target: str, path: Path, sizes: str) -> Path:
    """Return the path with the suffix of the target."""
    if target not in SUFFIXES:
        raise unknown("target", target, SUFFIXES)
    if sizes not in ("auto", "any", "fixed"):
        raise unknown("sizes", sizes, ("auto", "any", "fixed"))
    check_libraries(target)
    suffix = SUFFIXES[target]
    path = path if path.suffix or not suffix else path.with_suffix(suffix)
    if suffix and path.suffix != suffix:
        raise VitrailError(f"{path} ends in {path.suffix}; a file of {target} ends in {suffix}.")
    return path


def _write(
    program: Program, description: dict[str, Any], target: str, path: Path
) -> tuple[list[Path], list[Compared], float]:
    """Write a program and compare the file with the model; return its files and when they were written.

    Raises:
        VitrailError: it cannot be written, does not run, or differs; then its files are removed.
    """
    files = write_program(program, target, path, description)
    wrote = perf_counter()
    try:
        compared = verify(open_runtime(target, files[0]), program)
        if differing := [str(each) for each in compared if not each.good]:
            raise VitrailError("The exported file differs from the model:\n" + "\n".join(differing[:4]))
    except VitrailError:
        for file in files:
            file.unlink(missing_ok=True)
        raise
    return files, compared, wrote
