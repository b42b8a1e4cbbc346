"""Export a classifier to a file, and verify the file."""

from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from vitrail.edits.quantize import with_dense_weights
from vitrail.errors import VitrailError, unknown
from vitrail.export.formats import SUFFIXES, write_program
from vitrail.export.program import Program, export_program
from vitrail.export.runtime import open_exported
from vitrail.export.verify import Compared, verify
from vitrail.parts.backbone import Classifier


class Exported(NamedTuple):
    """An exported and verified file.

    Args:
        files: the files written.
        sizes: `any`, or the side of the only image size.
        reason: why the size is fixed; empty if it is not.
        compared: comparisons with the model.
        seconds: duration of export and verification.
    """

    files: list[Path]
    sizes: str
    reason: str
    compared: list[Compared]
    seconds: float

    def __str__(self) -> str:
        size = "any image size" if self.sizes == "any" else f"{self.sizes} x {self.sizes} images only ({self.reason})"
        worst = max(each.error for each in self.compared)
        checked = f"{len(self.compared)} batches and sizes agree with the model, largest error {worst:.1e}"
        names = ", ".join(str(path) for path in self.files)
        return f"{names}: any batch, {size}\n{checked}; {self.seconds:.0f} s"


def export(model: Any, target: str, path: str | Path, sizes: str = "auto") -> Exported:
    """Export a classifier, and compare the file with the model in its own runtime.

    Args:
        model: a classifier in evaluation mode on a CPU.
        target: `onnx`, `openvino` or `pt2`.
        path: file to write; the target's suffix is added if it has none.
        sizes: `auto`, `any` or `fixed`; see `export_program`.

    Raises:
        VitrailError: the model is no classifier of images, the target is unknown, or the file differs from the model;
            such a file is removed.

    Example:
        >>> import tempfile, vitrail
        >>> model = vitrail.create_model("vit_tiny_patch16_224", depth=1, num_classes=3, image_size=32).eval()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export(model, "pt2", f"{folder}/vit.pt2").sizes
        'any'
    """
    if target not in SUFFIXES:
        raise unknown("target", target, SUFFIXES)
    if not isinstance(model, Classifier):
        raise VitrailError(
            f"{type(model).__name__} is not an image classifier; export writes classifiers.\n"
            "Models of other tasks run with vitrail predict."
        )
    if sizes not in ("auto", "any", "fixed"):
        raise unknown("sizes", sizes, ("auto", "any", "fixed"))
    path = Path(path)
    path = path if path.suffix else path.with_suffix(SUFFIXES[target])
    if path.suffix != SUFFIXES[target]:
        raise VitrailError(f"{path} ends in {path.suffix}; a file of {target} ends in {SUFFIXES[target]}.")
    started = perf_counter()
    model = with_dense_weights(model).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    program = export_program(model, sizes)
    try:
        files, compared = _write(program, model, target, path)
    except VitrailError as error:
        if sizes != "auto" or not program.any_size:
            raise
        program = export_program(model, "fixed")._replace(reason=str(error).replace("\n", "; "))
        files, compared = _write(program, model, target, path)
    sizes = "any" if program.any_size else str(program.size)
    return Exported(files, sizes, program.reason, compared, perf_counter() - started)


def _write(program: Program, model: Any, target: str, path: Path) -> tuple[list[Path], list[Compared]]:
    """Write a program and compare the file with the model.

    Raises:
        VitrailError: it cannot be written, does not run, or differs; then its files are removed.
    """
    metadata = {
        "variant": model.variant,
        "preprocess": model.preprocess.to_dict(),
        "labels": None if model.labels is None else list(model.labels),
        "sizes": "any" if program.any_size else program.size,
    }
    files = write_program(program, target, path, metadata)
    try:
        # A .pt2 file is loaded by pickle, so the program that was written to it is compared instead.
        run = program.exported.module(check_guards=False) if target == "pt2" else open_exported(path)
        compared = verify(run, model, program)
        if differing := [str(each) for each in compared if not each.good]:
            raise VitrailError("The exported file differs from the model:\n" + "\n".join(differing[:4]))
    except VitrailError:
        for file in files:
            file.unlink(missing_ok=True)
        raise
    return files, compared
