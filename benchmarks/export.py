"""Export models, verify them, and print the table of docs/export.md.

    python benchmarks/export.py swin_tiny_patch4_window7_224 vit_base_patch16_224 --to onnx openvino
    python benchmarks/export.py --every        # a small model of every family of images, ONNX

Weights are random, as the time does not depend on them.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from vitrail.errors import VitrailError
from vitrail.export.export import Exported, export
from vitrail.models import create_model

MODELS = ("vit_base_patch16_224", "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "convnext_tiny")


def row(name: str, target: str, done: Exported) -> str:
    """Return a row of the table."""
    sizes = ", ".join(f"{size} {axis}" for axis, size in done.sizes.items())
    seconds = " + ".join(f"{each:.1f}" for each in done.seconds.values())
    error = max(each.error for each in done.compared)
    why = f" ({done.reason.splitlines()[0][:90]})" if done.reason else ""
    return f"| {name} | {target} | {sizes}{why} | {seconds} = {sum(done.seconds.values()):.0f} | {error:.1e} |"


def measure(name: str, target: str, model: Any) -> str:
    """Export one model to a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return row(name, target, export(model, target, Path(folder) / "model"))
        except VitrailError as error:
            return f"| {name} | {target} | refused: {str(error).splitlines()[0]} | | |"


def small_models() -> dict[str, Any]:
    """Return makers of a small model of every family of images, from the tests."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "models"))
    from small_models import SMALL  # pyright: ignore[reportMissingImports]

    return {name: (one.variant, one.overrides) for name, one in SMALL.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--to", nargs="+", default=["onnx"])
    parser.add_argument("--every", action="store_true")
    words = parser.parse_args()
    chosen = small_models() if words.every else {name: (name, {}) for name in words.models}
    torch.manual_seed(0)
    for name, (variant, fields) in chosen.items():
        for target in words.to:
            print(measure(name, target, create_model(variant, **fields).eval()), flush=True)


if __name__ == "__main__":
    main()
