"""`vitrail cost`: parameters, multiply-adds and memory of a model, by module."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import tyro

from vitrail.cli.table import print_table
from vitrail.errors import VitrailError

EXAMPLES = """
vitrail cost swin_tiny_patch4_window7_224
vitrail cost swin_tiny_patch4_window7_224 --convention layers      # as mmpretrain's table: 4.35 G
vitrail cost vit_base_patch16_224 --size 384 --batch 64 --by stage
vitrail cost vit_tiny_patch16_224 --set depth=6 --by part --json
"""

_MIB = 1 << 20


@dataclass(frozen=True)
class Cost:
    """Show what a model costs: parameters, multiply-adds, attention and activation memory, by module.

    Counted from shapes, without memory for weights. Multiply-adds are those of one image (or text) under a named
    convention, FLOPs are twice as many. Attention memory is that of all attention matrices of a batch in fp32 if none
    is fused away; activation memory is what a batch keeps for the backward pass in fp32, without checkpointing.
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
    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> int:
        """Count and print."""
        from vitrail.inference.cost import CONVENTIONS, model_cost

        if self.batch < 1 or (self.size is not None and self.size < 1):
            raise VitrailError(f"--batch and --size need whole numbers from 1 up, got {self.batch} and {self.size}.")
        rows = model_cost(self._model(), self.size, self.batch, self.convention, self.by)
        if self.json:
            print(json.dumps([{**asdict(row), "flops": 2 * row.multiply_adds} for row in rows], indent=2))
            return 0
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
        total = rows[-1]
        print(f"\nconvention   {self.convention}: {CONVENTIONS[self.convention]}")
        print(f"training     {_training(total)} at batch {self.batch}, fp32, AdamW")
        return 0

    def _model(self) -> Any:
        """Return the model on the meta device, or that of a folder."""
        import torch

        from vitrail.inference.model_loading import find_model
        from vitrail.models import HINT, catalogue, create_model
        from vitrail.training.config import parse_overrides

        if self.model in catalogue():
            with torch.device("meta"):
                return create_model(self.model, **parse_overrides(self.set))
        from pathlib import Path

        if not Path(self.model).exists():
            from vitrail.errors import unknown

            raise unknown("model", self.model, catalogue(), hint=HINT)
        if self.set:
            raise VitrailError("--set changes a model of the catalogue; a folder brings its own config.")
        return find_model(self.model, device="cpu")


def _training(total: Any) -> str:
    """Return the memory of weights, gradients, optimizer and activations."""
    weights = 4 * total.parameters
    parts = {"weights": weights, "gradients": weights, "optimizer": 2 * weights, "activations": total.activation_bytes}
    told = " + ".join(f"{name} {value / _MIB:.0f}" for name, value in parts.items())
    return f"{sum(parts.values()) / _MIB:.0f} MiB = {told}"
