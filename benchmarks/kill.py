"""Kill the train command while it works, go on, and compare every bit with a run that nobody disturbed.

    python benchmarks/kill.py --kills 20

First a run is observed to its end: its folder shows the phase at each moment. Then each trial starts the same run
anew, waits for the phase to be hit (in turn: the time before the first save, the middle of an epoch, a save, a
validation, the export at the end) and sends SIGKILL at a moment drawn uniformly from the time that this takes. What was
really hit is read from the folder that the dead run left; a run that had ended, or that was hit elsewhere, is drawn
again, earlier, and counted. Then `vitrail train --resume DIR` takes the run to its end.

Compared are sha256 of the last and the best weights and of the last training state, every step and validation of
`metrics.jsonl`, and `summary.json`; only times may differ. Everything that keeps a state is on: worker processes,
moving average, mixup, CutMix, accumulation, dropped paths, bf16. All runs use a copy of the library made at the start,
so the source may be edited meanwhile. Exits with 1 if any trial differs.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import vitrail

EPOCHS, STEPS = 10, 20  # whole batches of 60 in 1,259 images
SAVED_EVERY = 5  # the save after an epoch's last step shows where its validation begins
ARGUMENTS = [
    *("digits", "--model", "vit_tiny_patch16_224", "--set", "dim=32", "depth=2", "num_heads=2", "patch_size=2"),
    *(
        "--imgsz",
        "8",
        "--batch",
        "60",
        "--epochs",
        str(EPOCHS),
        "--drop-path",
        "0.2",
        "--ema",
        "0.99",
        "--mixup",
        "0.3",
    ),
    *("--cutmix", "0.5", "--grad-accum", "2", "--augment", "small-strong", "--precision", "bf16", "--workers", "2"),
    *("--threads", "1", "--save-steps", str(SAVED_EVERY)),
]
PHASES = ("before the first save", "mid-epoch", "save", "validation", "final export")
BEGIN, EPOCH, SAVE, VALIDATION, EXPORT = PHASES
LOOK = 0.001  # seconds between two looks at a folder
TRIES = 5


class Sight(NamedTuple):
    """State of a run, read from its folder.

    Args:
        saved: step of the newest training state; 0 where there is none.
        writing: whether a state or a model folder is being built.
        validated: epochs that are in `results.csv`.
        over: whether the summary is there.
    """

    saved: int
    writing: bool
    validated: int
    over: bool

    @property
    def phase(self) -> str:
        """Phase of the run."""
        if self.validated == EPOCHS:
            return EXPORT
        if self.writing:
            return SAVE
        if self.saved == 0:
            return BEGIN
        return VALIDATION if self.saved > self.validated * STEPS and self.saved % STEPS == 0 else EPOCH


class Target(NamedTuple):
    """When to kill: so many seconds after this is seen."""

    sight: Sight
    wait: float


def look(folder: Path) -> Sight:
    """Look at the folder of a run, which may be changing."""
    states, weights = names(folder / "state"), names(folder / "weights")
    saved = max((int(name[5:]) for name in states if name.startswith("step-")), default=0)
    writing = any(".new-" in name for name in states + weights)
    table = folder / "results.csv"
    rows = table.read_bytes().count(b"\n") if table.exists() else 0
    return Sight(saved, writing, max(rows - 1, 0), (folder / "summary.json").exists())


def names(folder: Path) -> list[str]:
    """List a folder that may not be there yet."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


class Command:
    """The train command, run from a copy of the library."""

    def __init__(self, place: Path):
        shutil.copytree(
            Path(vitrail.__file__).parent, place / "copy" / "vitrail", ignore=shutil.ignore_patterns("__pycache__")
        )
        self.place, self.environment = place, {**os.environ, "PYTHONPATH": str(place / "copy")}
        where = [sys.executable, "-c", "import vitrail; print(vitrail.__file__)"]
        used = subprocess.run(where, env=self.environment, cwd=place, capture_output=True, text=True, check=True).stdout
        assert used.startswith(str(place / "copy")), used

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a run."""
        words = [sys.executable, "-m", "vitrail", "train", *arguments]
        quiet, told = subprocess.DEVNULL, subprocess.PIPE
        return subprocess.Popen(words, env=self.environment, cwd=self.place, stdout=quiet, stderr=told)

    def begin(self, folder: Path) -> subprocess.Popen[bytes]:
        """Start a run in a fresh folder, and wait until it begins to work."""
        process = self.start(*ARGUMENTS, "--out", str(folder))
        while not (folder / "metrics.jsonl").exists() and process.poll() is None:
            time.sleep(LOOK)
        return process


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for a run that must end well."""
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"The run ended with {process.returncode}:\n{said.decode()}")


def watch(folder: Path, process: subprocess.Popen[bytes], until: Callable[[Sight], bool]) -> list[tuple[float, Sight]]:
    """Note each change of a folder with its time since the first look, until something is seen or the run has ended."""
    start, seen = time.monotonic(), list[tuple[float, Sight]]()
    while process.poll() is None and not (seen and until(seen[-1][1])):
        sight = look(folder)
        if not seen or sight != seen[-1][1]:
            seen.append((time.monotonic() - start, sight))
        time.sleep(LOOK)
    return seen


def draw(seen: list[tuple[float, Sight]], phase: str, moments: random.Random) -> Target:
    """Draw a moment uniformly from the time that a run spent in a phase."""
    spans = [(sight, end - begin) for (begin, sight), (end, _) in pairwise(seen)]
    spans = [(sight, length) for sight, length in spans if sight.phase == phase and not sight.over]
    (sight, length) = moments.choices(spans, weights=[length for _, length in spans])[0]
    return Target(sight, moments.uniform(0, length))


def kill(command: Command, folder: Path, target: Target) -> tuple[float, Sight] | None:
    """Kill a run in a phase; return the time and the state left, or None if it had ended."""
    process = command.begin(folder)
    begin = time.monotonic()
    watch(folder, process, lambda sight: sight >= target.sight)
    time.sleep(target.wait)
    alive, when = process.poll() is None, time.monotonic() - begin
    process.kill()
    process.communicate()
    sight = look(folder)
    return None if sight.over or not alive else (when, sight)


def hit(command: Command, folder: Path, target: Target, phase: str) -> tuple[float, Sight, int]:
    """Kill a run in a phase, earlier again after a miss; return the time, the state left, and the number of misses."""
    for misses in range(TRIES):
        done = kill(command, folder, target)
        if done is not None and done[1].phase == phase:
            return *done, misses
        shutil.rmtree(folder)
        target = target._replace(wait=target.wait / 3)
    raise SystemExit(f"{TRIES} runs were not hit in '{phase}': is the machine busy?")


def fingerprint(folder: Path) -> dict[str, str]:
    """Return the files that two equal runs share."""
    state = folder / "state" / f"step-{EPOCHS * STEPS:08d}"
    files = [*folder.glob("weights/*/model.safetensors"), *state.glob("*.safetensors")]
    prints = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if row["kind"] == "step"]
    assert steps == list(range(1, EPOCHS * STEPS + 1)), "a step is missing or doubled"
    summary = json.loads((folder / "summary.json").read_text())
    timeless = [{**row, "seconds": 0, "folder": "", "command": ""} for row in [*rows, summary]]
    return {**prints, "metrics and summary": json.dumps(timeless)}


def main() -> int:
    """Run the trials and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="number of trials")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    given = parser.parse_args()
    moments, same, missed = random.Random(given.seed), 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        command = Command(place)
        process = command.begin(place / "whole")
        seen = watch(place / "whole", process, lambda sight: False)
        finish(process)
        want = fingerprint(place / "whole")
        pace = next(when for when, sight in seen if sight.phase == EXPORT) / (EPOCHS * STEPS)
        print(f"undisturbed: {seen[-1][0]:.1f} s of work, {EPOCHS * STEPS} steps", flush=True)
        print("| kill | after s | about step | hit | state there | identical |\n|---|---|---|---|---|---|", flush=True)
        for number in range(given.kills):
            folder, phase = place / f"run-{number}", PHASES[number % len(PHASES)]
            when, sight, misses = hit(command, folder, draw(seen, phase, moments), phase)
            finish(command.start("--resume", str(folder)))
            identical = fingerprint(folder) == want
            same, missed = same + identical, missed + misses
            step = min(max(round(when / pace), sight.saved), sight.saved + SAVED_EVERY, EPOCHS * STEPS)
            state, answer = f"step {sight.saved}" if sight.saved else "none", "yes" if identical else "NO"
            print(f"| {number + 1} | {when:.2f} | {step} | {phase} | {state} | {answer} |", flush=True)
            shutil.rmtree(folder)
    if missed:
        print(f"drawn again, earlier, because the run had ended or was doing something else: {missed}")
    print(f"{same} of {given.kills} identical")
    return 0 if same == given.kills else 1


if __name__ == "__main__":
    sys.exit(main())
