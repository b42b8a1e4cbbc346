"""Time this tree against another revision: optimized inference and training steps, in processes that take turns.

    python benchmarks/revisions.py --against 80dd224
    python benchmarks/revisions.py --against main~3 --models vit_base_patch16_224 --turns 5 --seconds 1

Each turn starts one process per revision and model, so nothing is shared but the machine. A process reports the lower
quartile of its times. The ratio is the other revision's time over ours, 1.0 being equal: the median over the turns, and
its range. Names that only one revision has are looked up in `ENTRY_POINTS`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODELS = (
    "swin_tiny_patch4_window7_224",
    "vit_base_patch16_224",
    "nat_tiny",
    "mixer_b16_224",
    "resnetv2_50x1_bit",
)
ENTRY_POINTS = (("vitrail.fused.train_blocks", "fuse_for_training"), ("vitrail.training.quick", "quicken"))
"""The conversion for training, under its present and its earlier name."""

CHILD = """
import importlib, json, sys, time
import torch, vitrail
name, kind, batch, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
torch.manual_seed(0)
model = vitrail.create_model(name)
size = model.preprocess.size
images = torch.randn(batch, 3, size, size)
if kind == "train":
    for module, function in {entry_points}:
        try:
            convert = getattr(importlib.import_module(module), function)
            break
        except ImportError:
            continue
    model = convert(model.train())
    def step():
        with torch.autocast("cpu", torch.bfloat16):
            out = model(images)
        out.float().square().mean().backward()
else:
    model = vitrail.optimize(model.eval(), kind)
    def step():
        with torch.inference_mode():
            model(images)
for _ in range(3):
    step()
times, end = [], time.perf_counter() + seconds
while time.perf_counter() < end or len(times) < 5:
    start = time.perf_counter(); step(); times.append(time.perf_counter() - start)
times.sort()
print(json.dumps(times[len(times) // 4]))
"""


def main() -> None:
    """Print a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--jobs", nargs="+", default=["bf16:1", "bf16:8", "train:8"], help="kind:batch")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other"
        archive = subprocess.run(["git", "archive", options.against], cwd=ROOT, check=True, capture_output=True).stdout
        other.mkdir()
        subprocess.run(["tar", "-x", "-C", str(other)], input=archive, check=True)
        print("| model | job | ms, other | ms, this tree | other / this (range) |\n|---|---|---|---|---|")
        for name in options.models:
            for job in options.jobs:
                kind, batch = job.split(":")
                trees = {"other": other, "this": ROOT}
                times: dict[str, list[float]] = {tree: [] for tree in trees}
                for turn in range(options.turns):
                    for tree in list(trees)[:: 1 if turn % 2 else -1]:
                        times[tree].append(_time(trees[tree], name, kind, batch, options.seconds))
                ratios = sorted(old / new for old, new in zip(times["other"], times["this"], strict=True))
                ms = {tree: 1e3 * statistics.median(values) for tree, values in times.items()}
                spread = f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
                print(f"| {name} | {job} | {ms['other']:.1f} | {ms['this']:.1f} | {spread} |", flush=True)


def _time(tree: Path, name: str, kind: str, batch: str, seconds: float) -> float:
    """Run a process on the code of one tree, and return the seconds of a step."""
    code = CHILD.replace("{entry_points}", repr(ENTRY_POINTS))
    environment = os.environ | {"PYTHONPATH": str(tree / "src")}
    command = [sys.executable, "-c", code, name, kind, batch, str(seconds)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{tree}: {name} {kind} {batch} failed:\n{run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
