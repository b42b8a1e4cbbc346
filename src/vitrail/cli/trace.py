"""`vitrail trace`: one input walked through a model, frame by frame."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from vitrail.errors import VitrailError

if TYPE_CHECKING:
    from vitrail.trace.frame import ModelTrace

EXAMPLES = """
    vitrail trace swin_tiny_patch4_window7_224 photo.jpg --weights swin_t.safetensors
    vitrail trace runs/classify/digits photo.png --out digits.html
    vitrail trace nat_mini photo.jpg --text            # in the terminal; random weights are noted
    vitrail trace vit_tiny_patch16_224 --set depth=2   # without an image: a drawn example
    vitrail trace runs/translate/multi30k "A dog runs."  # merges, beam search as a tree, attention
"""


@dataclass(frozen=True)
class Trace:
    """Walk one image or text through a model: formula, shapes, cost and images of each step.

    The output is one HTML page that needs no network: patches, windows, roll, regions, mask, position tables, attention
    of selected queries, merging, class scores after each block, and the readable reference of each attention next
    to its kernel. Of texts also the merges of byte pairs, and beam search as a tree. Every number on it is that of the
    tensors inside. Any model of images can be traced, also one of a file in VITRAIL_MODELS.
    """

    model: Positional[str]
    """A name in the catalogue (without --weights its weights are random), a model or run folder, or
    hf:org/name@revision."""
    input: Positional[str | None] = None
    """An image, or a text in quotes if the model reads texts; default a drawn example, or a short sentence."""
    weights: str | None = None
    """A checkpoint, if the model is a name in the catalogue."""
    set: tuple[str, ...] = ()
    """Fields of the model's config to replace, as name=value, if the weights are random."""
    out: Path | None = None
    """The page to write; default runs/trace.html."""
    text: bool = False
    """Print the steps as a table instead of writing a page; with --out both."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""

    def run(self) -> int:
        """Trace, then write or print."""
        from vitrail.atomic_io import check_writable, make_folder
        from vitrail.cli.table import print_table
        from vitrail.trace.page import write_page
        from vitrail.trace.terminal import print_trace

        target = self.out or Path("runs/trace.html")
        if self.out or not self.text:
            make_folder(target.parent)
            check_writable(target)
        model, random = self._model()
        trace = self._trace(model)
        if random:
            trace.notes.insert(0, "The weights are random: shapes, cost and geometry are right, nothing is learned.")
        if self.text:
            print_trace(trace, print_table)
        if self.out or not self.text:
            size = write_page(trace, target).stat().st_size
            print(f"{len(trace.frames)} steps, {size / 1e6:.1f} MB. Open {target}")
        return 0

    def _model(self) -> tuple[Any, bool]:
        """Return the model, and whether its weights are random."""
        import torch

        from vitrail.inference.model_loading import find_model, pick_device
        from vitrail.models import catalogue, create_model
        from vitrail.parts.exported_file import check_layers
        from vitrail.training.config import parse_overrides

        if self.model in catalogue() and self.weights is None and not Path(self.model).exists():
            torch.manual_seed(0)
            return create_model(self.model, **parse_overrides(self.set)).to(pick_device(self.device)).eval(), True
        if self.set:
            raise VitrailError("--set changes a model with random weights; this one has weights of its own.")
        model = find_model(self.model, self.weights, self.device)
        check_layers(model, "a trace shows its layers")
        return model, False

    def _trace(self, model: Any) -> "ModelTrace":
        from shlex import join

        from vitrail.tasks import find_task
        from vitrail.tasks.image_sources import find_images
        from vitrail.trace.example import example_image
        from vitrail.trace.image_trace import trace_image
        from vitrail.trace.text_trace import is_text_model, trace_text

        command = join(["vitrail", *sys.argv[1:]])
        reads = find_task(model.task).reads
        if reads == "points" or (is_text_model(model) and reads != "text"):
            raise VitrailError(
                f"{self.model} is of the task {model.task}, which is not traced: give a model of images or texts."
            )
        if is_text_model(model):
            return trace_text(model, "A dog runs in the snow." if self.input is None else self.input, command)
        if self.input is None:
            return trace_image(model, example_image(), command=command)
        channels = getattr(getattr(model, "config", None), "in_channels", 3)
        [given, *more] = find_images(self.input, "L" if channels == 1 else "RGB")
        if more:
            raise VitrailError(f"{self.input} has {1 + len(more)} images; a trace is about one. Name a file.")
        return trace_image(model, given.read(), command=command)
