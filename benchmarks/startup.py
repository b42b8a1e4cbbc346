"""How long the door takes: milliseconds of `import vitrail` and of `vitrail --help`, from a cold process.

    python benchmarks/startup.py [--rounds 10]

Goals: 1000 ms for the import, 300 ms for each help. The median is told with the fastest and the slowest round; an empty
Python process is told beside them, for it is part of every figure.
"""

import argparse
import subprocess
import sys
from statistics import median
from time import perf_counter

STARTS = {
    "python (empty)": ["-c", "pass"],
    "import vitrail": ["-c", "import vitrail"],
    "vitrail --help": ["-m", "vitrail", "--help"],
    "vitrail models --help": ["-m", "vitrail", "models", "--help"],
    "vitrail train --help": ["-m", "vitrail", "train", "--help"],
}


def milliseconds(words: list[str]) -> float:
    """Time one process from start to end."""
    start = perf_counter()
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
    return 1000 * (perf_counter() - start)


def main() -> None:
    """Measure and print a line for each start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="processes to start for each line (default: 10)")
    rounds = parser.parse_args().rounds
    for name, words in STARTS.items():
        times = [milliseconds(words) for _ in range(rounds)]
        print(f"{name:<24}{median(times):7.0f} ms   ({min(times):.0f} to {max(times):.0f}, {rounds} rounds)")


if __name__ == "__main__":
    main()
