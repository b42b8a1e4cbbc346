"""Memory and time that `vitrail train --dry-run` predicts, against those of the run itself.

    python benchmarks/dry_run.py
    python benchmarks/dry_run.py --only vit swin --rounds 1

Six configurations of seconds each: four families on images, one with an average of the weights, and a language model.
Both commands run in a process of their own, in turns. Memory is the peak resident memory of the process.
Time is the `time` of the dry run: from the line with the title, printed before the first update, to the end of
the process; it has all updates and validations, the saved states, the final evaluation and the report. Start-up
(imports, data, model) comes before and has a column of its own. Reach: memory within 15 %, time within 25 %.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from sheet import flags, show, tell
from vitrail.tasks.table import Table

MEMORY, TIME = 0.15, 0.25
COLUMNS = ["configuration", "MB predicted", "MB found", "off", "s predicted", "s found", "off ", "start-up s"]

CONFIGS = {
    "vit": "digits --model vit_tiny_patch16_224 --set dim=96 depth=4 num_heads=3 patch_size=4 --imgsz 32 --epochs 4",
    "swin": "digits --model swin_tiny_patch4_window7_224 --set dim=48 depths=2,2 num_heads=3,6 patch_size=2 "
    "window_size=4 --imgsz 32 --epochs 2",
    "nat": "digits --model nat_mini --set dim=32 depths=1,1 num_heads=2,4 --imgsz 32 --epochs 3 --batch 32",
    "resnet": "PHOTOS --model resnet50 --imgsz 64 --epochs 3 --batch 16",
    "ema": "PHOTOS --model vit_tiny_patch16_224 --set depth=6 --imgsz 128 --epochs 4 --batch 16 --ema 0.99",
    "language": "TEXT --task language --model text_decoder_tiny --set dim=64 depth=2 --context 64 --epochs 1",
}
"""Arguments of `vitrail train`."""
PLACES = {"PHOTOS": "photos", "TEXT": "text.txt"}
"""Data that is made here."""


@dataclass(frozen=True)
class Measured:
    """One process of `vitrail train`.

    Args:
        text: its output.
        peak: peak resident memory in bytes.
        startup: seconds until the line with the title.
        seconds: seconds after it.
    """

    text: str
    peak: int
    startup: float
    seconds: float


def watch(words: Sequence[str]) -> Measured:
    """Run `vitrail train` and note the times of its output."""
    start = time.monotonic()
    command = [sys.executable, "-m", "vitrail", "train", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines, begun = [], start
    for line in process.stdout:
        lines.append(line)
        if " M parameters) on " in line:
            begun = time.monotonic()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    text = "".join(lines)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{text}")
    return Measured(text, usage.ru_maxrss * 1024, begun - start, time.monotonic() - begun)


def predicted(text: str) -> tuple[float, float]:
    """Return the megabytes and seconds of the output of a dry run.

    Example:
        >>> predicted("memory      1,200 MB of 9,000 MB: fits\\ntime        about 1 min 05 s (65.2 s)")
        (1200.0, 65.2)
    """
    memory = re.search(r"^memory +([\d,]+) MB", text, re.MULTILINE)
    seconds = re.search(r"^time .*\(([\d.]+) s", text, re.MULTILINE)
    assert memory and seconds, text
    return float(memory[1].replace(",", "")), float(seconds[1])


def photos(folder: Path, count: int = 60) -> Path:
    """Write images of two classes that have to be decoded and resized."""
    rng = np.random.default_rng(0)
    for name in ("even", "odd"):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            small.resize((320, 240)).save(folder / name / f"{i}.jpg", quality=90)
    return folder


def prose(path: Path, words: int = 20_000) -> Path:
    """Write a text of random words."""
    rng = np.random.default_rng(0)
    syllables = [a + b for a in "bdgkmnprst" for b in "aeiou"]
    path.write_text(" ".join("".join(rng.choice(syllables, 2)) for _ in range(words)))
    return path


def compare(name: str, place: Path, rounds: int) -> list[str]:
    """Run both commands in turns; return the row of medians."""
    words = CONFIGS[name].split()
    words = [str(place / PLACES[word]) if word in PLACES else word for word in words]
    found: list[list[float]] = []
    for turn in range(rounds):
        text, out = watch([*words, "--dry-run"]).text, place / f"{name}-{turn}"
        run = watch([*words, "--out", str(out)])
        found.append([*predicted(text), run.peak / 2**20, run.seconds, run.startup])
        loop = json.loads((out / "summary.json").read_text())["seconds"]
        tell(f"{name}, predicted: {text[text.index('time  ') :].splitlines()[0]}")
        tell(f"{name}, found: {loop:.1f} s of updates and validations, {run.seconds - loop:.1f} s after")
    memory, seconds, peak, truth, startup = (median(column) for column in zip(*found, strict=True))
    return [
        *(name, f"{memory:.0f}", f"{peak:.0f}", _off(memory, peak, MEMORY)),
        *(f"{seconds:.1f}", f"{truth:.1f}", _off(seconds, truth, TIME), f"{startup:.1f}"),
    ]


def _off(predicted: float, found: float, reach: float) -> str:
    """Format a relative error; `!` if it is out of reach.

    Example:
        >>> _off(110, 100, 0.15), _off(70, 100, 0.25)
        ('+10 %', '-30 % !')
    """
    error = predicted / found - 1
    return f"{100 * error:+.0f} %{' !' if abs(error) > reach else ''}"


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show."""
    parser: argparse.ArgumentParser = flags(__doc__)
    parser.set_defaults(rounds=1)
    parser.add_argument("--only", nargs="+", choices=CONFIGS, default=list(CONFIGS), help="configurations to run")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        photos(place / "photos")
        prose(place / "text.txt")
        rows = [compare(name, place, options.rounds) for name in options.only]
    show(
        "dry_run", "Dry run against the run", [Table("Predicted and found", COLUMNS, rows, right=COLUMNS[1:])], options
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
