"""Training of the last layer on features that are computed once, against the same run without them.

    python benchmarks/frozen.py --weights vit_tiny_patch16_224.pt
    python benchmarks/frozen.py --weights vit_tiny_patch16_224.pt --cifar10 cifar10.tar.gz --set cifar10 --scale 0.5

Both runs are `vitrail train SET --weights W --freeze backbone --augment none`; one has `--no-cache-features`. They run
in processes of their own, in turns. `training s` is the time of updates and validations, with that of computing the
features; `speed-up` compares it with the run that computes them in each epoch; `whole s` is the time of the process.
The last column is the largest difference of a weight of the head, relative to the largest weight.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from finetune_sets import SETS, build_set
from sheet import flags, ratio, show, tell
from vitrail.tasks.table import Table

COLUMNS = ["set", "run", "top-1 %", "training s", "speed-up", "whole s", "head differs by"]
SIDES = {"each epoch": ["--no-cache-features"], "features once": []}


def run(folder: Path, options: Any, more: Sequence[str], out: Path) -> tuple[dict[str, Any], float]:
    """Train in a process of its own; return its summary and its seconds."""
    shutil.rmtree(out, ignore_errors=True)
    words = ["--weights", str(options.weights), "--freeze", "backbone", "--augment", "none", "--out", str(out)]
    words += ["--imgsz", str(options.imgsz), "--epochs", str(options.epochs), *more]
    words += ["--threads", str(options.threads)] if options.threads else []
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "vitrail", "train", str(folder), *words], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return json.loads((out / "summary.json").read_text()), time.monotonic() - start


def head(out: Path) -> Tensor:
    """Return the weights of the last layer after the last update."""
    return load_file(out / "weights" / "last" / "model.safetensors")["head.linear.weight"].float()


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show."""
    parser = flags(__doc__)
    parser.set_defaults(rounds=1)
    parser.add_argument("--weights", type=Path, required=True, help="weights of a ViT-Ti")
    parser.add_argument("--set", choices=SETS, default="digits", help="set to train on (default: %(default)s)")
    parser.add_argument("--cifar10", type=Path, help="tar of train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("--bccd", type=Path, help="VOC folder of the blood-cell images")
    parser.add_argument("--imgsz", type=int, default=64, help="side of the images (default: 64)")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each run (default: 20)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the set to take (default: 1)")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as place:
        path = {"cifar10": options.cifar10, "bccd": options.bccd}.get(options.set)
        folder = build_set(options.set, Path(place), path, options.scale)
        found: dict[str, list[tuple[dict[str, Any], float]]] = {side: [] for side in SIDES}
        for turn in range(options.rounds):
            for side, more in SIDES.items():
                found[side].append(run(folder, options, more, Path(place) / f"run-{side.split()[0]}"))
                tell(f"{side}, turn {turn}: {found[side][-1][0]['seconds']:.1f} s")
        plain, once = (head(Path(place) / f"run-{side.split()[0]}") for side in SIDES)
        off = float((once - plain).abs().max() / plain.abs().max())
    seconds = {side: [summary["seconds"] for summary, _ in runs] for side, runs in found.items()}
    rows = [
        [
            *(options.set, side, f"{100 * runs[0][0]['top1']:.1f}", f"{median(seconds[side]):.1f}"),
            ratio(seconds[side], seconds["each epoch"]),
            f"{median(whole for _, whole in runs):.1f}",
            f"{off:.1e}" if side == "features once" else "",
        ]
        for side, runs in found.items()
    ]
    title = f"ViT-Ti, {options.imgsz} pixels, {options.epochs} epochs"
    show("frozen", "The last layer on cached features", [Table(title, COLUMNS, rows, right=COLUMNS[2:])], options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
