"""Shared parts of the speed benchmarks: flags, interleaved timing, and a report, printed and optionally written."""

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TypeVar

import torch

from vitrail.atomic_io import write_file
from vitrail.bench.environment import in_lines, place
from vitrail.bench.interleaved_timing import Timings, alternate
from vitrail.tasks.table import Table

RESULTS = Path(__file__).parent / "results"
Found = TypeVar("Found")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def flags(about: str | None) -> argparse.ArgumentParser:
    """Return a parser with the flags that every benchmark of speed has.

    Args:
        about: the docstring of the script.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each candidate (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.3, help="least length of a turn (default: 0.3)")
    parser.add_argument("--threads", type=int, default=0, help="threads to compute with (default: as PyTorch does)")
    parser.add_argument(
        "--out", type=Path, nargs="?", const=RESULTS, metavar="FOLDER", help=f"write a dated page to {RESULTS.name}/"
    )
    return parser


def precision_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--precision`."""
    parser.add_argument("--precision", choices=DTYPES, default="bf16", help="what to compute in (default: bf16)")


def begin(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> argparse.Namespace:
    """Read the flags, set the threads, and draw the same numbers each time."""
    options = parser.parse_args(words)
    torch.manual_seed(0)
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


def take_turns(candidates: Mapping[str, Callable[[], object]], options: argparse.Namespace) -> dict[str, Timings]:
    """Time candidates turn by turn, as the flags say."""
    return alternate(candidates, options.rounds, options.seconds)


def in_rounds(runs: Mapping[str, Callable[[], Found]], rounds: int) -> tuple[dict[str, list[float]], dict[str, Found]]:
    """Run calls of many seconds in turns, and return the seconds of each turn and the last results.

    The first turn warms up and is not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    found: dict[str, Found] = {}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            started = perf_counter()
            found[name] = run()
            if turn:
                times[name].append(perf_counter() - started)
    return times, found


def ratio(times: Sequence[float], other: Sequence[float]) -> str:
    """Return how many times as fast a call is as another, the median over the rounds."""
    return f"{median(b / a for a, b in zip(times, other, strict=True)):.2f}"


def tell(line: str) -> None:
    """Print progress to stderr."""
    print(line, file=sys.stderr, flush=True)


def show(name: str, title: str, tables: Sequence[Table], options: argparse.Namespace) -> None:
    """Print a page in markdown, and write it where `--out` says.

    Args:
        name: of the benchmark; with the date the name of the file.
        title: of the page.
        tables: the results.
        options: the flags.
    """
    command = shlex.join(["python", f"benchmarks/{name}.py", *sys.argv[1:]])
    facts = [f"- Command: `{command}`", f"- Threads: {torch.get_num_threads()}, rounds: {options.rounds}"]
    head = [f"# {title}, {date.today().isoformat()}", "", *facts, *in_lines(place()), ""]
    text = "\n".join([*head, *(table.section() for table in tables)])
    print(text)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / f"{name}-{date.today().isoformat()}.md"
        write_file(path, (text.rstrip() + "\n").encode())
        tell(f"written {path}")
