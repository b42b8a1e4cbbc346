"""Kill the train command at random moments, go on, and compare every bit with a run that nobody disturbed.

    python benchmarks/kill.py --kills 20

Each trial starts `vitrail train` in a fresh folder, waits until its log appears, sends SIGKILL after a time drawn
uniformly from what such a run takes from there on (steps, saves, validations, the end), goes on with `--resume auto`
until the run is over, and compares sha256 of the last and the best weights, of the last training state, and every step
of `metrics.jsonl`. Everything that keeps a state is on: worker processes, moving average, mixup, CutMix, accumulation,
dropped paths, bf16. Exits with 1 if any trial differs. Do not edit the library meanwhile: each trial reads it anew.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ARGUMENTS = [
    *("digits", "--model", "vit_tiny_patch16_224", "--set", "dim=32", "depth=2", "num_heads=2", "patch_size=2"),
    *("--imgsz", "8", "--batch", "60", "--epochs", "15", "--drop-path", "0.2", "--ema", "0.99", "--mixup", "0.3"),
    *("--cutmix", "0.5", "--grad-accum", "2", "--augment", "small-strong", "--precision", "bf16", "--workers", "2"),
    *("--threads", "1", "--save-steps", "7"),
]


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start the command, or go on with what it began."""
    command = [sys.executable, "-m", "vitrail", "train", *ARGUMENTS, "--out", str(folder), "--resume", "auto"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for a run that must end well."""
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"The run ended with {process.returncode}:\n{said.decode()}")


def wait_for_log(folder: Path, process: subprocess.Popen[bytes]) -> float:
    """Wait until a run has made its log, and return the time."""
    while not (folder / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.005)
    return time.monotonic()


def newest(folder: Path) -> int:
    """Return the step of the newest state."""
    return max((int(path.name[5:]) for path in (folder / "state").glob("step-*")), default=0)


def fingerprint(folder: Path) -> dict[str, str]:
    """Return what two equal runs share."""
    state = folder / "state" / f"step-{newest(folder):08d}"
    files = [*folder.glob("weights/*/model.safetensors"), *state.glob("*.safetensors")]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "step"]
    assert [row["step"] for row in steps] == list(range(1, len(steps) + 1)), "a step is missing or doubled"
    prints = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {**prints, "steps": json.dumps(steps)}


def main() -> int:
    """Run the trials and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="number of trials")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    given = parser.parse_args()
    moments, differ, harmless = random.Random(given.seed), 0, 0
    with tempfile.TemporaryDirectory() as place:
        whole = start(Path(place) / "whole")
        begin = wait_for_log(Path(place) / "whole", whole)
        finish(whole)
        life = time.monotonic() - begin
        want = fingerprint(Path(place) / "whole")
        print(f"undisturbed: {life:.1f} s after start-up, {newest(Path(place) / 'whole')} steps", flush=True)
        print("| kill | after s | newest saved step | same bits |\n|---|---|---|---|", flush=True)
        for number in range(1, given.kills + 1):
            folder, wait = Path(place) / f"run-{number}", moments.uniform(0, life)
            process = start(folder)
            wait_for_log(folder, process)
            try:
                process.wait(wait)
                harmless += 1
            except subprocess.TimeoutExpired:
                process.kill()
            process.communicate()
            saved = newest(folder)
            finish(start(folder))
            same = fingerprint(folder) == want
            differ += not same
            print(f"| {number} | {wait:.2f} | {saved} | {'yes' if same else 'NO'} |", flush=True)
    print(f"{given.kills - differ} of {given.kills} identical; {harmless} of the runs had ended before their kill.")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
