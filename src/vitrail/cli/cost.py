"""`vitrail cost`: parameters, multiply-adds and memory of a model, by module."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from vitrail.cli.table import print_table
from vitrail.errors import VitrailError

EXAMPLES = """
vitrail cost swin_tiny_patch4_window7_224
vitrail cost swin_tiny_patch4_window7_224 --convention layers      # as mmpretrain's table: 4.35 G
vitrail cost vit_base_patch16_224 --size 384 --batch 64 --by stage
vitrail cost vit_tiny_patch16_224 --set depth=6 --by part --json
vitrail cost swin_tiny_patch4_window7_224 --plot cost.png             # bars by module; MSA against W-MSA
vitrail cost vit_small_patch16_224 --training --batch 16              # memory by precision, optimizer, checkpointing
vitrail cost swin_tiny_patch4_window7_224 --receptive-field           # pixels that each block sees
"""

_MIB = 1 << 20


@dataclass(frozen=True)
class Cost:
    """Show the cost of a model: parameters, multiply-adds, attention and activation memory, by module.

    Counted from shapes, without memory for weights. Multiply-adds are those of one image (or text) under a named
    convention, FLOPs are twice as many. Attention memory is that of all attention matrices of a batch in fp32 if none
    is fused away; activation memory is that of tensors saved for the backward pass in fp32, without checkpointing.
    """

    model: tyro.conf.Positional[str]
    """A name in the catalogue, or a model or run folder."""
    set: tuple[str, ...] = ()
    """Fields of the model's config to replace, as name=value: --set num_classes=10."""
    size: int | None = None
    """Side of the image in pixels, or tokens of a text; default the model's own."""
    batch: int = 1
    """Images or texts of a batch, for the memory."""
    convention: Literal["all", "layers", "norms", "layers+norms"] = "all"
    """all: products of layers and attention (timm, torchvision); layers: without attention (mmpretrain's Swin); norms:
    all and norms (fvcore); layers+norms."""
    by: Literal["stage", "block", "part"] = "block"
    """Collect stages, blocks, or the mixers and norms within blocks."""
    training: bool = False
    """Predict the memory of training for --batch and its multiples, from small updates made here on the CPU."""
    receptive_field: bool = False
    """Measure how many pixels the middle cell after each block depends on."""
    plot: Path | None = None
    """Image file to draw: cost by module, and global against window attention over the image's size."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> int:
        """Count and print."""
        from vitrail.inference.cost import CONVENTIONS, model_cost

        if self.batch < 1 or (self.size is not None and self.size < 1):
            raise VitrailError(f"--batch and --size need whole numbers from 1 up, got {self.batch} and {self.size}.")
        model = self._model()
        rows = model_cost(model, self.size, self.batch, self.convention, self.by)
        if self.plot is not None:
            from vitrail.inference.cost_plot import plot_cost

            plot_cost(model, rows, self.plot, f"{self.model}, {rows[-1].multiply_adds / 1e9:.3f} GMACs")
        if self.receptive_field and not (hasattr(model.config, "preprocess") or hasattr(model.config, "upsampler")):
            raise VitrailError(f"{self.model} is no model of images, so it has no receptive field in pixels.")
        if self.training or self.receptive_field:
            model = self._model("cpu")
        extra = self._memory_table(model) if self.training else []
        seen = self._fields(model) if self.receptive_field else []
        if self.json:
            print(json.dumps(self._values(rows, extra, seen), indent=2))
            return 0
        _print_modules(rows)
        total = rows[-1]
        print(f"\nconvention   {self.convention}: {CONVENTIONS[self.convention]}")
        print(f"training     {_training_text(total)} at batch {self.batch}, fp32, AdamW")
        if extra:
            print("\ntraining on a CPU with the blocks of `vitrail train`: MiB of tensors at the peak")
            print_table(
                tuple(extra[0]), [[_cell(value) for value in row.values()] for row in extra], tuple(extra[0])[3:]
            )
        if seen:
            _print_fields(seen)
        if self.plot is not None:
            print(f"\nplot         {self.plot}")
        return 0

    def _values(self, rows: list[Any], extra: list[dict[str, Any]], seen: list[Any]) -> Any:
        """Return the JSON value: a list of modules, or an object if there is more."""
        modules = [{**asdict(row), "flops": 2 * row.multiply_adds} for row in rows]
        if not (self.training or self.receptive_field):
            return modules
        return {"modules": modules, "training": extra, "receptive_fields": [each._asdict() for each in seen]}

    def _memory_table(self, model: Any) -> list[dict[str, Any]]:
        """Return a row for each batch, precision, optimizer, with and without checkpointing."""
        from itertools import product

        from vitrail.inference.training_memory import OPTIMIZERS, PRECISIONS, TrainingSetup, training_memories

        batches, rows = tuple(self.batch * factor for factor in (1, 4, 16)), []
        for precision, optimizer, checkpointing in product(PRECISIONS, OPTIMIZERS, (False, True)):
            setup = TrainingSetup(self.batch, precision, optimizer, checkpointing)
            for batch, memory in zip(batches, training_memories(model, setup, batches, self.size), strict=True):
                facts = {"precision": precision, "optimizer": optimizer, "checkpointing": checkpointing, "batch": batch}
                parts = {name: round(n / _MIB, 1) for name, n in asdict(memory).items()}
                states = parts.pop("optimizer")
                rows.append({**facts, **parts, "states": states, "total": round(memory.total / _MIB, 1)})
        return rows

    def _fields(self, model: Any) -> list[Any]:
        from vitrail.inference.receptive_field import receptive_fields

        return receptive_fields(model, self.size)

    def _model(self, device: str = "meta") -> Any:
        """Return the model on a device, or that of a folder."""
        import torch

        from vitrail.inference.model_loading import find_model
        from vitrail.models import HINT, catalogue, create_model
        from vitrail.training.config import parse_overrides

        if self.model in catalogue():
            with torch.device(device):
                return create_model(self.model, **parse_overrides(self.set))
        if not Path(self.model).exists():
            from vitrail.errors import unknown

            raise unknown("model", self.model, catalogue(), hint=HINT)
        if self.set:
            raise VitrailError("--set changes a model of the catalogue; a folder brings its own config.")
        return find_model(self.model, device="cpu")


def _print_modules(rows: list[Any]) -> None:
    columns = ("module", "params", "GMACs", "GFLOPs", "attention MiB", "activations MiB")
    cells = [
        [
            row.name,
            f"{row.parameters:,}",
            f"{row.multiply_adds / 1e9:.3f}",
            f"{2 * row.multiply_adds / 1e9:.3f}",
            f"{row.attention_bytes / _MIB:.2f}" if row.attention_bytes else "",
            f"{row.activation_bytes / _MIB:.2f}",
        ]
        for row in rows
    ]
    print_table(columns, cells, right=columns[1:])


def _print_fields(seen: list[Any]) -> None:
    height, width = seen[0].image
    print(f"\nreceptive field of the middle cell after each block, of {height} x {width} pixels")
    print_table(
        ("block", "rows", "columns"),
        [[each.name, str(each.rows), str(each.columns)] for each in seen],
        right=("rows", "columns"),
    )


def _cell(value: Any) -> str:
    """Return a value of the training table."""
    return ("yes" if value else "no") if isinstance(value, bool) else value if isinstance(value, str) else f"{value:,}"


def _training_text(total: Any) -> str:
    """Return the memory of weights, gradients, optimizer and activations."""
    weights = 4 * total.parameters
    parts = {"weights": weights, "gradients": weights, "optimizer": 2 * weights, "activations": total.activation_bytes}
    told = " + ".join(f"{name} {value / _MIB:.0f}" for name, value in parts.items())
    return f"{sum(parts.values()) / _MIB:.0f} MiB = {told}"
