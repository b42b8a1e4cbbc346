"""`vitrail convert`: convert a checkpoint to a model folder, or to another library's format."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

EXAMPLES = """
vitrail convert vit_tiny.pth --out models/vit_tiny
vitrail convert hf:microsoft/swin-tiny-patch4-window7-224@main --out models/swin_tiny
vitrail convert models/swin_tiny --to torchvision --out swin_t.pth
vitrail convert runs/mine/weights/best --to huggingface --out mine_for_transformers
vitrail convert runs/lora --merge --out models/mine               # LoRA adapters merged into plain weights
vitrail convert runs/lora --to adapters --out models/mine_adapters
vitrail convert models/mine_adapters --base vit_tiny.pth --out models/merged
vitrail convert own_vit.pth --model vit_tiny_patch16_224 --set num_heads=4 --out models/own   # sizes of one's own
"""


@dataclass(frozen=True)
class Convert:
    """Convert a checkpoint of timm, torchvision, Hugging Face or the authors to a model folder or to another's format.

    Format, architecture and variant are detected from the names and shapes of the tensors. Files are read as data only:
    a file that needs code to run is an error that names its imports.
    """

    source: Positional[str]
    """A file, a folder, or hf:org/name@revision."""

    out: Path
    """Where to write: a folder (vitrail, huggingface), or a file ending in .safetensors, .pth, .pt, .bin or .npz."""

    to: Literal["vitrail", "timm", "huggingface", "torchvision", "official", "mmpretrain", "adapters"] = "vitrail"
    """Whose names to write. official: the authors' repository (JAX models as .npz); adapters: a folder with
    the LoRA adapters and the head alone."""

    model: str | None = None
    """The variant, as `vitrail models` names it; detected from the tensors by default."""

    set: tuple[str, ...] = ()
    """Fields of the model's config that cannot be inferred from tensors, as name=value: --set num_heads=4."""

    merge: bool = False
    """Merge LoRA adapters into plain weights, for other libraries and for fastest use."""

    base: str | None = None
    """The weights that a folder of adapters was trained on."""

    def run(self) -> int:
        """Convert and print a report."""
        from vitrail.training.config import parse_overrides
        from vitrail.weights.convert import convert
        from vitrail.weights.folder import model_folder

        words = ["vitrail", "convert", self.source, "--to", self.to, "--out", str(self.out)]
        words += ["--model", self.model] if self.model else []
        words += ["--merge"] * self.merge + (["--base", self.base] if self.base else [])
        command = shlex.join([*words, *(["--set", *self.set] if self.set else [])])
        fields = parse_overrides(self.set)
        options = {"model": self.model, "fields": fields, "command": command, "merge": self.merge, "base": self.base}
        print(convert(model_folder(self.source), self.to, self.out, **options))
        return 0
