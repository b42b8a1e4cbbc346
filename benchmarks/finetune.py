"""Fine-tuning by default, `vitrail train DATA --weights W`, against a plain loop of timm's parts.

    python benchmarks/finetune.py --weights vit_tiny_patch16_224.pt --cifar10 cifar10.tar.gz --bccd BCCD/
    python benchmarks/finetune.py --weights vit_tiny_patch16_224.pt --sets digits photos --seeds 1 --epochs 3

Both get the same folders (`train`, `val`, `test`), weights, image size and number of epochs, and choose the rest
themselves. timm's side is a loop as its users write it (`timm_loop`): RandomResizedCrop and flips, AdamW with lr 1e-4,
cosine decay with warm-up, label smoothing, batches of 32. Top-1 is that of the test split, over the seeds: mean and
95 % interval of the mean (Student's t). `training s` is the time of updates and validations, `whole s` that of the
process, for ours with start, final evaluation and report. Each run has a process of its own; the sides take turns.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from math import cos, pi, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import torch

from finetune_sets import SETS, build_set
from sheet import flags, show, tell
from vitrail.tasks.table import Table

MODEL = "vit_tiny_patch16_224"
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}  # 97.5 % quantile by degrees of freedom
COLUMNS = ["set", "side", "top-1 %", "training s", "whole s", "peak MB"]


class Run(NamedTuple):
    """Figures of one run.

    Args:
        top1: share of the test images that are classified correctly.
        training: seconds of updates and validations.
        whole: seconds of the process.
        peak: peak resident memory of the process in bytes.
    """

    top1: float
    training: float
    whole: float
    peak: int


def vitrail_command(folder: Path, options: argparse.Namespace, seed: int, out: Path) -> list[str]:
    """Return the command of our side: no flags but the shared budget and the place of the run."""
    budget = ["--imgsz", str(options.imgsz), "--epochs", str(options.epochs), "--seed", str(seed)]
    budget += ["--threads", str(options.threads)] if options.threads else []
    return [sys.executable, "-m", "vitrail", "train", str(folder), "--weights", str(options.weights), *budget] + [
        *("--out", str(out))
    ]


def timm_command(folder: Path, options: argparse.Namespace, seed: int, out: Path) -> list[str]:
    """Return the command of timm's side: this file, for one run."""
    values = {"folder": str(folder), "weights": str(options.weights), "imgsz": options.imgsz, "seed": seed}
    values |= {"epochs": options.epochs, "model": options.model, "threads": options.threads, "out": str(out)}
    return [sys.executable, __file__, "--child", json.dumps(values)]


def run(command: list[str], out: Path) -> Run:
    """Run a side in a process of its own; it leaves its figures in `out/summary.json`."""
    before = time.monotonic()
    done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.stdout is not None
    text = done.stdout.read()
    _, status, usage = os.wait4(done.pid, 0)
    done.returncode = os.waitstatus_to_exitcode(status)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{text}")
    figures = json.loads((out / "summary.json").read_text())
    return Run(figures["top1"], figures["seconds"], time.monotonic() - before, usage.ru_maxrss * 1024)


def timm_loop(folder: Path, weights: Path, model: str, imgsz: int, epochs: int, seed: int) -> dict[str, float]:
    """Fine-tune with timm's parts: the loop that its users write."""
    import timm
    from timm.data import create_transform, resolve_data_config
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    torch.manual_seed(seed)
    names = sorted(entry.name for entry in (folder / "train").iterdir())
    source: Any = {"file": str(weights)}
    net = timm.create_model(
        model, pretrained=True, pretrained_cfg_overlay=source, num_classes=len(names), img_size=imgsz
    )
    settings = {**resolve_data_config({}, model=net), "input_size": (3, imgsz, imgsz)}
    normal = {key: settings[key] for key in ("input_size", "mean", "std", "interpolation")}
    varied: Any = create_transform(**normal, is_training=True, scale=(0.35, 1.0), color_jitter=None, auto_augment=None)
    still: Any = create_transform(**normal, crop_pct=settings["crop_pct"])
    sets = {split: ImageFolder(folder / split, varied if split == "train" else still) for split in _SPLITS}
    train = DataLoader(sets["train"], 32, shuffle=True)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
    total, step, start = epochs * len(train), 0, time.monotonic()
    for _ in range(epochs):
        net.train()
        for images, labels in train:
            rate = min(1, (step + 1) / (0.1 * total)) * (1 + cos(pi * step / total)) / 2
            for group in optimizer.param_groups:
                group["lr"] = 1e-4 * rate
            with torch.autocast("cpu", torch.bfloat16, enabled=_fast_bf16()):
                loss = criterion(net(images), labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
        share_correct(net, DataLoader(sets["val"], 64))
    seconds = time.monotonic() - start
    return {"top1": share_correct(net, DataLoader(sets["test"], 64)), "seconds": seconds}


@torch.no_grad()
def share_correct(net: torch.nn.Module, data: Any) -> float:
    """Return the top-1 accuracy."""
    net.eval()
    return sum((net(images).argmax(1) == labels).sum().item() for images, labels in data) / len(data.dataset)


def interval(values: Sequence[float]) -> str:
    """Format mean and 95 % interval in percent.

    Example:
        >>> interval([0.90, 0.92, 0.94])
        '92.0 ± 5.0'
    """
    mean = f"{100 * fmean(values):.1f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {100 * STUDENT.get(len(values) - 1, 1.96) * stdev(values) / sqrt(len(values)):.1f}"


def compare(name: str, folder: Path, options: argparse.Namespace, place: Path) -> list[list[str]]:
    """Run both sides with every seed, in turns; return the rows of the table."""
    sides: dict[str, Any] = {"vitrail": vitrail_command, "timm": timm_command}
    runs: dict[str, list[Run]] = {side: [] for side in sides}
    for seed in range(options.seeds):
        for side, command in sides.items():
            out = place / f"{name}-{side}-{seed}"
            runs[side].append(run(command(folder, options, seed, out), out))
            tell(f"{name} {side} seed {seed}: {runs[side][-1]}")
    rows = []
    for side, figures in runs.items():
        seconds = [f"{fmean(getattr(figure, field) for figure in figures):.1f}" for field in ("training", "whole")]
        peak = max(figure.peak for figure in figures) / 2**20
        rows.append([name, side, interval([figure.top1 for figure in figures]), *seconds, f"{peak:.0f}"])
    return rows


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show."""
    parser = flags(__doc__)
    parser.set_defaults(rounds=1)
    parser.add_argument("--weights", type=Path, help=f"weights of timm's {MODEL}, or of --model")
    parser.add_argument("--model", default=MODEL, help="timm's name of their model (default: %(default)s)")
    parser.add_argument("--sets", nargs="+", choices=SETS, help="default: all whose path is given")
    parser.add_argument("--cifar10", type=Path, help="tar of train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("--bccd", type=Path, help="VOC folder of the blood-cell images")
    parser.add_argument("--imgsz", type=int, default=96, help="side of the images (default: 96)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each run (default: 3)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each side (default: 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of each set to take (default: 1)")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.child is not None:
        return child(**options.child)
    paths = {"cifar10": options.cifar10, "bccd": options.bccd}
    names = options.sets or [name for name in SETS if name not in paths or paths[name] is not None]
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for name in names:
            folder = build_set(name, Path(place), paths.get(name), options.scale)
            rows += compare(name, folder, options, Path(place))
    title = f"{options.model}, {options.imgsz} pixels, {options.epochs} epochs, {options.seeds} seeds"
    show("finetune", "Fine-tuning by default", [Table(title, COLUMNS, rows, right=COLUMNS[2:])], options)
    return 0


def child(folder: str, weights: str, model: str, imgsz: int, epochs: int, seed: int, threads: int, out: str) -> int:
    """Run timm's side once, and write its figures."""
    if threads:
        torch.set_num_threads(threads)
    figures = timm_loop(Path(folder), Path(weights), model, imgsz, epochs, seed)
    Path(out).mkdir(parents=True, exist_ok=True)
    (Path(out) / "summary.json").write_text(json.dumps(figures))
    return 0


def _fast_bf16() -> bool:
    """Return whether the processor computes in bf16."""
    try:
        return "bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


_SPLITS = ("train", "val", "test")

if __name__ == "__main__":
    sys.exit(main())
