"""Start-up times: `import vitrail` and `vitrail --help` in a cold process; first output of an optimized model.

    python benchmarks/startup.py [--rounds 10]
    python benchmarks/startup.py --first vit_base_patch16_224 --precisions fp32 bf16 int8 --rounds 3

Goals: 1000 ms for the import, 300 ms for each help; with `--first`, 1000 ms for `vitrail.optimize` and its first output
with the native libraries built, 2000 ms in int8. Each line has the median with the fastest and the slowest round; an
empty Python process is part of every figure but those of `--first`, which are measured inside a new process.
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


FIRST = """
import sys, time, torch, vitrail
from vitrail import optimize
model = vitrail.create_model(sys.argv[1]).eval()
images = torch.randn(1, 3, model.preprocess.size, model.preprocess.size)
start = time.perf_counter()
optimized = optimize(model, sys.argv[2])
packed = time.perf_counter()
optimized(images)
print(1000 * (packed - start), 1000 * (time.perf_counter() - start))
"""


def first_output(model: str, precision: str, rounds: int) -> str:
    """Time conversion and first output of an optimized model in new processes; the first one builds the libraries."""
    times = []
    for _ in range(rounds + 1):
        command = [sys.executable, "-c", FIRST, model, precision]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        times.append([float(value) for value in done.stdout.split()])
    packing, whole = zip(*times[1:], strict=True)
    name = f"{model} {precision}"
    return f"{name:<34}{median(whole):7.0f} ms   ({min(whole):.0f} to {max(whole):.0f}; packing {median(packing):.0f})"


def main() -> None:
    """Measure and print a line for each start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="processes to start for each line (default: 10)")
    parser.add_argument("--first", metavar="MODEL", help="time the first output of this optimized model instead")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16", "int8"], help="precisions of --first")
    options = parser.parse_args()
    rounds = options.rounds
    for precision in options.precisions if options.first else ():
        print(first_output(options.first, precision, rounds), flush=True)
    for name, words in ({} if options.first else STARTS).items():
        times = [milliseconds(words) for _ in range(rounds)]
        print(f"{name:<24}{median(times):7.0f} ms   ({min(times):.0f} to {max(times):.0f}, {rounds} rounds)")


if __name__ == "__main__":
    main()
