"""Run the same jobs in this tree and in another revision, and compare all that they write.

    python benchmarks/same.py --against main~3
    python benchmarks/same.py --against main~3 --keep /tmp/same --only vit pair  # the other revision runs once
    python benchmarks/same.py --against main~3 --figures                         # prose may differ, its numbers may not

Jobs are command lines, so names inside the library may differ. Trained are a small ViT (moving average, mixup, CutMix,
accumulation, layer decay, worker processes), Swin (bf16, frozen stages, SGD, early stop), PoolFormer (class folders), a
distilled DeiT with a teacher, and a fine-tuning of the head; the ViT again by two processes under DDP and under FSDP.
Models are then evaluated and asked to predict. Compared are weights, training states, logs, config, summary,
evaluation, model folders, report and everything printed; times, dates, memory and paths are left out. Keys that only
this tree writes into a JSON or YAML file are listed and count as equal.

Then runs that the other revision began and that were killed by SIGKILL are resumed by this tree, alone and by two
processes: their weights, states and logs must be those of the undisturbed run. Model folders of the other revision must
predict the same here. Exits with 1 if anything differs.
"""

import argparse
import csv
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image

ROOT = Path(__file__).parents[1]
RUN = "train digits --precision fp32 --threads 1 --device cpu --save-seconds 0 --batch 120 --workers 0"
VIT = f"{RUN} --model vit_tiny_patch16_224 --set dim=16 depth=2 num_heads=2 patch_size=4 --imgsz 8 --drop-path 0.1"
RICH = f"{VIT} --epochs 3 --ema 0.9 --mixup 0.3 --cutmix 0.5 --grad-accum 2 --layer-decay 0.8 --augment small-strong"
SWIN = "--model swin_tiny_patch4_window7_224 --set dim=16 depths=1,1 num_heads=2,4 patch_size=2 window_size=4"
POOL = "--model poolformer_s12 --set dims=8,16 depths=1,1 layer_scale=1e-3 --imgsz 32"
DEIT = "--model deit_tiny_distilled_patch16_224 --set dim=16 depth=2 num_heads=2 patch_size=4 --imgsz 16"


class Job(NamedTuple):
    """A command line, its name, and how many processes run it."""

    name: str
    words: str
    processes: int = 1


TRAININGS = (
    Job("vit", f"{RICH} --workers 2 --out runs/vit"),
    Job(
        "swin", f"{RUN} {SWIN} --imgsz 16 --freeze 1 --optimizer sgd --lr 0.3 --precision bf16 --epochs 9 --patience 1"
    ),
    Job(
        "pool",
        f"{RUN} {POOL} --epochs 3 --batch 16 --val-share 0.3 --seed 3 --eval-every 2".replace("digits", "shades"),
    ),
    Job("deit", f"{RUN} {DEIT} --teacher runs/vit/weights/best --distill soft --smoothing 0.05 --epochs 2"),
    Job(
        "tune",
        f"{VIT} --weights runs/vit/weights/best --freeze backbone --epochs 1 --lr auto --layer-decay 1 --warmup 0.05 "
        "--teacher runs/vit/weights/best",
    ),
    Job("pair", f"{RICH} --parallel ddp", 2),
    Job("shards", f"{RICH} --parallel fsdp", 2),
)
USES = (
    Job("evaluate", "evaluate runs/vit digits --no-optimize --out vit.json --report vit.html"),
    Job("evaluate json", "evaluate runs/pool shades --split val --no-optimize --json --batch 7 --worst 3"),
    Job("evaluate bf16", "evaluate runs/swin digits --no-optimize --precision bf16 --rows 3"),
    Job("predict", "predict runs/pool shades/0 --no-optimize"),
    Job("predict one", "predict runs/deit shades/1/3.png --no-optimize --top 3"),
    Job("predict csv", "predict runs/vit shades/*/1.png --no-optimize --csv --top 2"),
    Job("predict json", "predict runs/swin shades/2 broken.png --no-optimize --json"),
    Job("predict lines", "predict runs/vit shades --no-optimize --out lines.jsonl"),
    Job("predict file", "predict runs/vit shades --no-optimize --out table.csv"),
    Job("dry run", f"{RICH} --dry-run"),
    Job("models", "models vit_tiny_patch16_224 --json"),
)
BEGUN = (
    Job("vit", f"{RICH} --workers 2 --save-steps 3"),
    Job("pair", f"{RICH} --parallel ddp --save-steps 3", 2),
    Job("shards", f"{RICH} --parallel fsdp --save-steps 3", 2),
)
KILLED_AT = 12  # of 30 updates, the second of an epoch

RENAMED = {"best_top1": "best"}  # keys of saved files, which are read under either name
TIMES = {"seconds", "images_per_second", "lengths", "folder", "out", "command", "save_steps", "checksum", "files"}
MOVING = (
    r"\d+ \w+ 20\d\d at \d\d:\d\d UTC|\b\d+ h \d+ min\b|\b\d+ min \d+ s\b|\b[\d.]+ m?s\b|ETA [\d:?]+|[\d,.]+ MB"
    r"|[\d,.]+ (img|images|pictures)(/s| a second| per second)|about [\d:]+|20\d\d-\d\d-\d\d|/[\w./-]*/"
)
FIGURE = re.compile(r"data:[\w/;,+=]+|\d[\d,.]*")


class Tree:
    """A copy of the library, and a folder in which its commands run.

    Args:
        place: where to put both.
        copy: puts the source of a revision into a folder.
    """

    def __init__(self, place: Path, copy: Callable[[Path], object]):
        self.source, self.work = place / "source", place / "work"
        if not self.source.exists():
            self.source.mkdir(parents=True)
            copy(self.source)
        self.work.mkdir(exist_ok=True)
        draw_shades(self.work)

    def start(self, job: Job, place: Path | None = None) -> subprocess.Popen[str]:
        """Start a job; its output goes to a file."""
        place = place or self.work
        words = [word for text in job.words.split() for word in expand(text, place)]
        python = [sys.executable, "-W", "ignore", "-m"]
        if job.processes > 1:
            python += [
                "torch.distributed.run",
                "--nproc-per-node",
                str(job.processes),
                "--master-port",
                free_port(),
                "-m",
            ]
        quiet = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "COLUMNS": "200", "GLOO_SOCKET_IFNAME": "lo"}
        with open(place / f"{job.name}.out", "w") as output:
            return subprocess.Popen(
                [*python, "vitrail", *words],
                env={**os.environ, **quiet, "PYTHONPATH": str(self.source / "src")},
                cwd=place,
                stdout=output,
                stderr=subprocess.STDOUT if job.processes == 1 else subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )

    def run(self, job: Job, place: Path | None = None) -> None:
        """Run a job to its end; a broken image among those to predict is the one failure that may be."""
        tell(f"{self.source.parent.name}: {job.name}")
        process = self.start(job, place)
        if process.wait() not in (0, 3):
            said = ((place or self.work) / f"{job.name}.out").read_text()
            raise SystemExit(f"'{job.name}' of {self.source} ended with {process.returncode}:\n{said[-3000:]}")

    def begin_and_kill(self, job: Job, place: Path) -> None:
        """Start a training in another folder and kill all its processes once a state is saved."""
        tell(f"{self.source.parent.name}: {job.name}, killed after update {KILLED_AT}")
        process = self.start(named(job), place)
        states = place / "runs" / job.name / "state"
        while not (states / f"step-{KILLED_AT:08d}").exists():
            time.sleep(0.002)
            if process.poll() is not None:
                raise SystemExit(f"'{job.name}' ended with {process.returncode} before it could be killed.")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if (place / "runs" / job.name / "summary.json").exists():
            raise SystemExit(f"'{job.name}' was over before it was killed.")


def main() -> None:
    """Run and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, metavar="COMMIT", help="the other revision")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the runs; those of the other are used again")
    parser.add_argument("--only", nargs="*", metavar="JOB", help='names of jobs, such as vit "predict csv"')
    parser.add_argument("--figures", action="store_true", help="of prose compare numbers and images alone")
    options = parser.parse_args()
    commit = git("rev-parse", "--short", f"{options.against}^{{commit}}").decode().strip()
    with tempfile.TemporaryDirectory() as scratch:
        place = (options.keep or Path(scratch)).absolute()
        shutil.rmtree(place / "ours", ignore_errors=True)
        other = Tree(place / commit, lambda folder: unpack(commit, folder))
        ours = Tree(place / "ours", lambda folder: shutil.copytree(ROOT / "src", folder / "src"))
        wrong = [*compare(other, ours, options.only, options.figures)]
    print("\n".join(wrong) if wrong else f"Everything is the same as in {commit}.")
    raise SystemExit(1 if wrong else 0)


def compare(other: Tree, ours: Tree, only: list[str] | None, figures: bool) -> Iterator[str]:
    """Run the jobs and yield the differences."""
    jobs = [named(job) for job in TRAININGS if not only or job.name in only]
    uses = [job for job in USES if not only or job.name in only]
    for tree in (other, ours):
        for job in jobs + uses:
            if tree is ours or not (tree.work / f"{job.name}.done").exists():
                tree.run(job)
                (tree.work / f"{job.name}.done").touch()
    for job in jobs:
        yield from differing(other.work / "runs" / job.name, ours.work / "runs" / job.name, figures)
    for name in [f"{job.name}.out" for job in jobs + uses if job.processes == 1] + [
        "vit.json",
        "lines.jsonl",
        "table.csv",
    ]:
        if (other.work / name).exists() and (ours.work / name).exists():
            yield from different(other.work / name, ours.work / name, name, figures)
    for job in BEGUN:
        if not only or job.name in only:
            yield from resumed(other, ours, job)
    for job in (each for each in uses if each.name in ("predict csv", "predict lines")):
        place = ours.work / "old folders"
        place.mkdir(exist_ok=True)
        for name in ("runs", "shades"):
            (place / name).symlink_to(other.work / name) if not (place / name).exists() else None
        ours.run(job, place)
        yield from different(
            other.work / f"{job.name}.out", place / f"{job.name}.out", f"old folder, {job.name}", figures
        )


def resumed(other: Tree, ours: Tree, job: Job) -> Iterator[str]:
    """Let the other revision begin a run, kill it, resume it here, and yield differences to the undisturbed run."""
    place = ours.work / "killed"
    (place / "runs").mkdir(parents=True, exist_ok=True)
    other.begin_and_kill(job, place)
    ours.run(Job(f"resumed {job.name}", f"train --resume runs/{job.name}", job.processes), place)
    whole, again = other.work / "runs" / job.name, place / "runs" / job.name
    for path in files(whole):
        if path.suffix in (".safetensors", ".jsonl") or path.name in ("results.csv", "state.json", "summary.json"):
            name = str(path.relative_to(whole))
            found = again / name
            yield from (
                different(path, found, f"killed and resumed, {job.name}/{name}", False)
                if found.exists()
                else [f"killed and resumed, {job.name}: {name} is missing"]
            )


def named(job: Job) -> Job:
    """Give a training the folder of its name."""
    return job if "--out" in job.words else job._replace(words=f"{job.words} --out runs/{job.name}")


def differing(other: Path, ours: Path, figures: bool) -> Iterator[str]:
    """Yield the files of two run folders that differ, and those that only one of them has."""
    names = [{str(path.relative_to(folder)) for path in files(folder)} for folder in (other, ours)]
    yield from (f"{ours.name}: only one has {name}" for name in sorted(names[0] ^ names[1]))
    for name in sorted(names[0] & names[1]):
        yield from different(other / name, ours / name, f"{ours.name}/{name}", figures)


def files(folder: Path) -> list[Path]:
    """List the files of a run folder; TensorBoard's are the log once more, and are named by the time."""
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(("events.", ".lock"))]


def different(other: Path, ours: Path, name: str, figures: bool) -> Iterator[str]:
    """Yield how a file differs, at most one line."""
    a, b = (content(path, figures) for path in (other, ours))
    new: list[str] = []
    where = difference(a, b, "", new)
    if new:
        tell(f"note: {name} has more: {', '.join(new[:6])}")
    if where is not None:
        yield f"{name}: {where}"


def content(path: Path, figures: bool) -> Any:
    """Read the parts of a file that are compared."""
    if path.suffix == ".safetensors":
        return tensors(path)
    text = path.read_text()
    if path.suffix == ".json":
        return json.loads(text)
    if path.suffix == ".yaml":
        return yaml.safe_load(text)
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    if path.name == "results.csv":
        return list(csv.DictReader(text.splitlines()))
    timed = ("step ",)  # of a run, printed every so many seconds
    lines = [parsed(line) for line in text.splitlines() if line.strip() and not line.startswith(timed)]
    return FIGURE.findall("\n".join(map(str, lines))) if figures else lines


def tensors(path: Path) -> dict[str, str]:
    """Return type, shape and checksum of each tensor; their order in a shard depends on the threads that wrote it."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    found = {}
    for name, facts in json.loads(raw[8:start]).items():
        if name != "__metadata__":
            begin, end = (start + offset for offset in facts["data_offsets"])
            found[name] = f"{facts['dtype']} {facts['shape']} {hashlib.sha256(raw[begin:end]).hexdigest()}"
    return found


def parsed(line: str) -> Any:
    """Parse a line of JSON; in any other put a mark in the place of times, dates, memory and paths."""
    with suppress(ValueError):
        return json.loads(line)
    return " ".join(re.sub(MOVING, "~", line).split())


def difference(a: Any, b: Any, where: str, new: list[str]) -> str | None:
    """Return where two values differ first; keys that only the second has are added to `new`."""
    if isinstance(a, dict) and isinstance(b, dict):
        new += [f"{where}{key}" for key in b if key not in a and key not in TIMES]
        for key in (key for key in a if key not in TIMES):
            name = key if key in b else RENAMED.get(key, key)
            if name not in b:
                return f"{where}{key} is missing"
            if (found := difference(a[key], b[name], f"{where}{key}.", new)) is not None:
                return found
        return None
    if isinstance(a, list) and isinstance(b, list):
        for i, (one, two) in enumerate(zip(a, b, strict=False)):
            if (found := difference(one, two, f"{where}{i}.", new)) is not None:
                return found
        return None if len(a) == len(b) else f"{where}length {len(a)} and {len(b)}"
    return None if a == b else f"{where.rstrip('.') or 'content'}: {str(a)[:300]!r} and {str(b)[:300]!r}"


def draw_shades(place: Path) -> None:
    """Draw a data set of three classes, the brighter half of an image, and a file that is no image."""
    draws = np.random.default_rng(0)
    for label in range(3):
        (place / "shades" / str(label)).mkdir(parents=True, exist_ok=True)
        for number in range(24):
            pixels = draws.integers(0, 120, (36, 40, 3))
            pixels[:, :, label] += 90
            Image.fromarray(pixels.astype(np.uint8)).save(place / "shades" / str(label) / f"{number}.png")
    (place / "broken.png").write_bytes(b"no image")


def expand(word: str, place: Path) -> list[str]:
    """Return the files that a pattern means, as a shell does."""
    return sorted(str(path.relative_to(place)) for path in place.glob(word)) if "*" in word else [word]


def free_port() -> str:
    """Return a port that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def unpack(commit: str, folder: Path) -> None:
    """Put the source of a commit into a folder."""
    subprocess.run(["tar", "-x", "-C", str(folder)], input=git("archive", commit, "src"), check=True)


def git(*words: str) -> bytes:
    """Run git in this repository and return its output."""
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=True).stdout


def tell(line: str) -> None:
    """Print progress, apart from the result."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
