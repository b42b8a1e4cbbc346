"""Does every image architecture learn? A small variant of each trains on the digits with the default recipe.

    python benchmarks/learning.py                         # all families; finished ones are not repeated
    python benchmarks/learning.py --families swin vit     # some
    python benchmarks/learning.py --out                   # also write a dated page

Data: scikit-learn's 1,797 digits (1,258 to train, 359 to test) at 32 x 32 pixels, or 16 x 16 (`SIDES`). Recipe: the
defaults of `vitrail train`, with --epochs. A family passes at 0.95 of the test digits.

    cost      25 to 230 s a family on one CPU core
    result    runs/learning/FAMILY (a run folder each), the table on the screen
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sheet import begin, flags, show, tell
from vitrail.atomic_io import write_file
from vitrail.errors import VitrailError
from vitrail.models import FAMILIES, family_of, list_models
from vitrail.tasks.table import Table
from vitrail.training.config import TrainConfig
from vitrail.training.train import train

PASS = 0.95
SIDE = 32
VIT = "dim=48 depth=4 num_heads=3"
PATCHED = f"{VIT} patch_size=4"
STAGES = "dims=32,64 depths=2,2 num_heads=2,4"
PYRAMID = f"{STAGES} sr_ratios=4,1 mlp_ratios=4,4"
RESNET = "dim=16 depths=2,2"

ROWS: dict[str, tuple[str, str]] = {
    "vit": ("vit_tiny_patch16_224", PATCHED),
    "vit_hybrid": ("vit_small_r26_s32_224", f"{VIT} depths=1,1 patch_size=1"),
    "deit": ("deit_tiny_distilled_patch16_224", PATCHED),
    "swin": ("swin_tiny_patch4_window7_224", "dim=32 depths=2,2 num_heads=2,4 window_size=4 patch_size=2"),
    "swin_v2": ("swinv2_tiny_window8_256", "dim=32 depths=2,2 num_heads=2,4 window_size=4 patch_size=2"),
    "nest": ("nest_tiny", "dims=32,64 depths=2,2 num_heads=2,4 patch_size=2"),
    "pvt": ("pvt_tiny", PYRAMID),
    "pvt_v2": ("pvt_v2_b0", PYRAMID),
    "twins": ("twins_svt_small", f"{PYRAMID} window_size=4"),
    "nat": ("nat_mini", "dim=32 depths=2,2 num_heads=2,4 kernel_size=3"),
    "dinat": ("dinat_mini", "dim=32 depths=2,2 num_heads=2,4 kernel_size=3 dilations=2,1"),
    "dinat_s": ("dinat_s_tiny", "dim=32 depths=2,2 num_heads=2,4 kernel_size=3 dilations=2,1"),
    "poolformer": ("poolformer_s12", "dims=32,64 depths=2,2"),
    "metaformer": ("caformer_s18", "dims=32,64 depths=2,2 token_mixers=convolution,attention"),
    "convnext": ("convnext_tiny", "dims=32,64 depths=2,2"),
    "igpt": ("imagegpt_small", "dim=96 depth=3 num_heads=4 colors=16"),
    "vmoe": ("vmoe_s32_last2", f"{PATCHED} expert_blocks=1,3 num_experts=4"),
    "resnet": ("resnet50", RESNET),
    "botnet": ("botnet26t_256", "dim=16"),
    "halonet": ("halonet26t", "dim=16 num_heads=2,2,2,2"),
    "sasa": ("sasa_resnet26", "dim=16 depths=1,1"),
    "nonlocal_resnet": ("nonlocal1_resnet50", "dim=16"),
    "vt_resnet": ("vt_resnet50", f"{RESNET} depth=2 tokens=8"),
    "perceiver": ("perceiver_io_conv", "latents=16 dim=48 depth=2 repeats=2 num_heads=3"),
    "perceiver_iterative": ("perceiver_fourier", "latents=16 dim=48 depth=2 reads=2 num_heads=3"),
    "mixer": ("mixer_s16_224", "dim=48 depth=4 patch_size=4"),
    "cct": ("cct_7_3x2_32", VIT),
    "bit": ("resnetv2_50x1_bit", "dim=32 depths=2,2"),
    "tnt": ("tnt_s_patch16_224", f"{VIT} inner_dim=12 inner_heads=2 patch_size=8"),
    "cpvt": ("cpvt_tiny", PATCHED),
    "deepvit": ("deepvit_patch16_224_re_attn_16b", PATCHED),
    "cait": ("cait_xxs24_224", f"{PATCHED} class_depth=1"),
    "convit": ("convit_tiny", "dim=48 depth=4 num_heads=4 patch_size=4 class_depth=1"),
    "xcit": ("xcit_tiny_12_p16_224", f"{VIT} class_depth=1 patch_size=8"),
    "dinov2": ("vit_small_patch14_reg4_dinov2", PATCHED),
    "siglip": ("vit_base_patch16_siglip_224", PATCHED),
    "eva02": ("eva02_base_patch14_448", PATCHED),
    "retnet_image": ("retnet_tiny_patch16_224", PATCHED),
    "crossvit": (
        "crossvit_tiny_240",
        "fine_dim=48 coarse_dim=96 coarse_depth=2 num_heads=3 depth=2 fine_patch=4 coarse_patch=8 scale=1.0",
    ),
}
"""Of each family a variant and the numbers that make it small."""

SIDES = {"igpt": 16, "perceiver_iterative": 16}
"""Sides of images where each pixel is a token, or an input that is projected to twice 261 channels."""


def image_families() -> list[str]:
    """List the families whose variants classify images."""
    having = {family_of(name) for name in list_models(task="classify")}
    return [family for family in FAMILIES if family in having]


def learn(family: str, epochs: int, folder: Path) -> dict[str, object]:
    """Train one family, or return the figures of the run that did."""
    model, numbers = ROWS[family]
    side = SIDES.get(family, SIDE)
    setup = {"model": model, "set": numbers, "epochs": epochs, "imgsz": side}
    done, out = folder / f"{family}.json", folder / family
    if done.is_file() and (found := json.loads(done.read_text()))["setup"] == setup:
        return found
    tell(f"training {family}: {model} {numbers}")
    started = time.monotonic()
    config = TrainConfig(
        data="digits", model=model, set=tuple(numbers.split()), imgsz=side, epochs=epochs, workers=0, out=str(out)
    )
    summary = train(config)
    seconds = time.monotonic() - started
    found = {"setup": setup, "seconds": seconds, "parameters": summary.parameters, "top1": summary.metrics["top1"]}
    write_file(done, json.dumps(found).encode())
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Train the missing runs, and print the table."""
    parser = flags(__doc__)
    parser.add_argument("--families", nargs="+", choices=ROWS, default=list(ROWS), help="which families")
    parser.add_argument("--epochs", type=int, default=40, help="passes over the digits (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("runs/learning"), help="where runs are kept")
    options = begin(parser, words)
    options.folder.mkdir(parents=True, exist_ok=True)
    rows, failed = [], []
    for family in options.families:
        try:
            found: dict[str, Any] = learn(family, options.epochs, options.folder)
        except VitrailError as error:
            tell(f"  {error}")
            failed.append(family)
            continue
        passes = found["top1"] >= PASS
        failed += [] if passes else [family]
        cells = (family, found["setup"]["model"], f"{found['parameters']:,}", f"{found['top1']:.3f}")
        rows.append((*cells, f"{found['seconds']:.0f}", "yes" if passes else "no"))
        tell("  " + "  ".join(rows[-1]))
    columns = ("family", "variant", "parameters", "test top-1", "seconds", f">= {PASS}")
    show("learning", "Small variants on the digits", [Table("learning", columns, rows)], options)
    if failed:
        tell(f"below {PASS} or not trained: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
