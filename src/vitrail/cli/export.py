"""`vitrail export`: write a model for another runtime."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

EXAMPLES = """
vitrail export runs/classify/flowers --to onnx
vitrail export swin_tiny_patch4_window7_224 --weights swin_t.pth --to openvino   # vitrail predict FILE.xml runs it
"""


@dataclass(frozen=True)
class Export:
    """Export a model to ONNX, OpenVINO, PyTorch's exported program, ExecuTorch or a Triton repository.

    Any batch size; other sizes (height and width, length of texts, number of points) are free too if the architecture
    takes them; Swin's windows are computed without a branch on a size. Detectors include the suppression of boxes;
    models that generate are one step with its cache, which vitrail generate and translate run. The file is compared
    with the model in its own runtime, on eight batches and sizes and on small images, before the command returns. It
    carries task, preprocessing or vocabulary, and class names: predict, evaluate, serve, generate, translate and
    restore read ONNX and OpenVINO files like model folders; the verbs that need layers or weights ask for the folder.
    (A .pt2 file runs in PyTorch alone; it is loaded by pickle, so the other verbs do not open it.)
    """

    model: Positional[str]
    """A model folder, a run folder, a name in the catalogue (with --weights), or hf:org/name@revision."""
    to: Literal["onnx", "openvino", "pt2", "executorch", "triton"] = "onnx"
    """Format of the file; triton: a folder with an ONNX model, its configuration and class names."""
    out: Path | None = None
    """File or folder to write; by default the model's name with the format's suffix, in this folder."""
    weights: str | None = None
    """A checkpoint, if the model is a name in the catalogue."""
    sizes: Literal["auto", "any", "fixed"] = "auto"
    """any: fail if sizes must be fixed; fixed: the model's own size; auto: any if it can be."""

    def run(self) -> int:
        """Export, verify and print a report."""
        from vitrail.export.export import export
        from vitrail.export.metadata import SUFFIXES
        from vitrail.inference.model_loading import find_model

        model = find_model(self.model, self.weights, "cpu")
        print(export(model, self.to, self.out or Path(f"{model.variant}{SUFFIXES[self.to]}"), self.sizes))
        return 0
