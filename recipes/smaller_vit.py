"""A ViT-Ti, fine-tuned, then smaller in three ways: pruned and trained on, at any depth, and as the teacher of a Swin.

    python recipes/smaller_vit.py FOLDER --weights vit_tiny_patch16_224.pt --minutes 7
    python recipes/smaller_vit.py FOLDER --tuned RUN --parts prune depth teach --minutes 7

FOLDER has `train/CLASS` and `test/CLASS` images, such as a subset of CIFAR-10. `--minutes` is the time of one training.

tune    fine-tunes the ViT at 64 pixels, with LayerDrop, so that every depth of it works
prune   narrows the residual stream, heads and MLPs (`--width`, `--heads`, `--mlp`), trains for half the time, and says
        what is lost (paired) and whether it is faster (in turns, optimized); the aim is 1.5x for at most one point
depth   one training, a curve of depths, even and greedy, nothing trained after it
teach   a small Swin with and without the ViT as its teacher, the same seeds: gain and its interval over the seeds
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vitrail
from vitrail.cli import main
from vitrail.compress.calibration_data import open_probes
from vitrail.compress.compress import compress
from vitrail.compress.measure import figures, measure_latency
from vitrail.compress.settings import CompressSettings
from vitrail.data.transform import EvalTransform
from vitrail.tasks import find_task
from vitrail.tasks.confidence_interval import paired_difference, wilson

SWIN = ("swin_tiny_patch4_window7_224", "dim=24", "depths=1,2,1", "num_heads=1,2,4", "window_size=4")


def run(*words: str) -> None:
    """Run a command of vitrail, and stop if it fails."""
    print("$ vitrail", *words, flush=True)
    if main(list(words)):
        sys.exit(1)


def right_answers(model: Any, data: str, split: str = "test") -> np.ndarray:
    """Return whether each image is named right."""
    test = find_task("classify").open_split(data, split)
    prepare, hits = EvalTransform(model.preprocess), []
    with torch.inference_mode():
        for first in range(0, len(test), 64):
            part = range(first, min(first + 64, len(test)))
            pixels = torch.stack([prepare.to_pixels(test.image(i, prepare.mode)) for i in part])
            hits.append(model(prepare.batch(pixels)).argmax(1).numpy() == np.asarray(test.labels)[first : part.stop])
    return np.concatenate(hits)


def rate(hits: np.ndarray) -> str:
    """Return the share that is right with its interval."""
    found = wilson(int(hits.sum()), len(hits))
    return f"{100 * hits.mean():.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def change(hits: np.ndarray, before: np.ndarray) -> str:
    """Return the change in points with its paired interval."""
    found = paired_difference(hits.tolist(), before.tolist())
    return f"{100 * (found.value or 0):+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def tune(given: Any) -> Path:
    """Fine-tune the released ViT."""
    out = given.runs / "tuned"
    words = ("--model", "vit_tiny_patch16_224", "--weights", given.weights, "--imgsz", "64", "--batch", "64")
    run("train", given.data, *words, "--minutes", given.minutes, "--layer-drop", "0.1", "--out", str(out))
    return out


def prune(given: Any, tuned: Path) -> None:
    """Compress, train on, and compare."""
    whole = vitrail.load_model(tuned / "weights" / "best")
    hits = right_answers(whole, given.data)
    print(f"whole: {rate(hits)}, {figures(whole).parameters:,} weights", flush=True)
    settings = CompressSettings(width=given.width, heads=given.heads, mlp=given.mlp)
    small = compress(whole, settings, open_probes(whole, given.data, 128))
    print(f"{settings.words()}, not trained: {rate(right_answers(small, given.data))}", flush=True)
    place = given.runs / "pruned"
    vitrail.save_model(small, place)
    words = ("--model", "vit_tiny_patch16_224", "--weights", str(place), "--imgsz", "64", "--batch", "64")
    distil = ("--teacher", str(tuned / "weights" / "best"), "--distill", "soft")
    half, out = str(float(given.minutes) / 2), str(given.runs / "pruned-tuned")
    run("train", given.data, *words, *distil, "--minutes", half, "--out", out)
    small = vitrail.load_model(Path(out) / "weights" / "best")
    after = right_answers(small, given.data)
    print(
        f"{settings.words()}, trained on: {rate(after)}, {change(after, hits)}; {figures(small).parameters:,} weights"
    )
    for batch in (1, 16):
        time = measure_latency(whole, small, batch)
        ratio = time.speedup
        print(f"batch {batch}: {time.verdict}, {ratio.median:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}] ({time.how})")


def depth(given: Any, tuned: Path) -> None:
    """Print what is right at each depth."""
    whole = vitrail.load_model(tuned / "weights" / "best")
    probes, hits = open_probes(whole, given.data, 128), right_answers(whole, given.data)
    print(f"12 blocks: {rate(hits)}", flush=True)
    for left in given.depths:
        for blocks in ("even", "greedy"):
            after = right_answers(compress(whole, CompressSettings(depth=left, blocks=blocks), probes), given.data)
            print(f"{left} blocks, {blocks}: {rate(after)}, {change(after, hits)}", flush=True)


def teach(given: Any, tuned: Path) -> None:
    """Train a small Swin with and without the teacher."""
    variant, *fields = SWIN
    common = ("train", given.data, "--model", variant, "--set", *fields, "--imgsz", "64", "--batch", "64")
    teacher = ("--teacher", str(tuned / "weights" / "best"), "--distill", "soft")
    gains = []
    for seed in range(given.seeds):
        shares = []
        for name, words in (("alone", ()), ("taught", teacher)):
            out = str(given.runs / f"swin-{name}-{seed}")
            run(*common, *words, "--epochs", given.epochs, "--seed", str(seed), "--out", out)
            shares.append(right_answers(vitrail.load_model(Path(out) / "weights" / "best"), given.data).mean())
        gains.append(100 * (shares[1] - shares[0]))
        print(f"seed {seed}: alone {shares[0]:.1%}, taught {shares[1]:.1%}", flush=True)
    spread = STUDENT.get(len(gains), 2.0) * np.std(gains, ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else np.nan
    print(f"gain {np.mean(gains):+.1f} points, 95 % interval over {len(gains)} seeds +-{spread:.1f}")


STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36}
"""Quantiles of Student's t for a 95 % interval, by number of seeds."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of train/CLASS and test/CLASS images")
    parser.add_argument("--weights", help="checkpoint of the ViT-Ti")
    parser.add_argument("--tuned", type=Path, help="run folder of a ViT that is fine-tuned already")
    parser.add_argument("--parts", nargs="+", choices=("prune", "depth", "teach"), default=["prune", "depth", "teach"])
    parser.add_argument("--minutes", default="7", help="time of a training (default: 7)")
    parser.add_argument("--width", type=float, default=0.75, help="share of the stream that stays (default: 0.75)")
    parser.add_argument("--heads", type=float, default=0.0, help="share of the heads to remove (default: 0)")
    parser.add_argument("--mlp", type=float, default=0.25, help="share of the MLPs to remove (default: 0.25)")
    parser.add_argument("--depths", type=int, nargs="+", default=[11, 10, 9, 8, 6], help="depths of the curve")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of the Swin with and without a teacher")
    parser.add_argument("--epochs", default="10", help="epochs of the Swin (default: 10)")
    parser.add_argument("--runs", type=Path, default=Path("runs/smaller_vit"), help="folder of the runs")
    options = parser.parse_args()
    chosen = options.tuned or tune(options)
    for part in options.parts:
        {"prune": prune, "depth": depth, "teach": teach}[part](options, chosen)
