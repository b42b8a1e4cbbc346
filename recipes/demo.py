"""The main job on embedded data: train, evaluate, predict, look inside, report. `make demo` runs it.

A small NAT learns scikit-learn's digits (1,797 images of real handwriting, 8x8 pixels, no download): its overlapping
patches learn from few images, and its attention over neighborhoods is shown by `explain` and in the report. Each step
is a command that works the same on your own folder.

    command   make demo
    cost      about two minutes on 2 CPU cores
    result    98 % top-1 on the 359 test images (runs/demo/summary.json), runs/demo/report.html
"""

import shutil
import sys
from pathlib import Path
from shlex import join, split

from vitrail.cli import main
from vitrail.data.datasets import open_dataset

RUN = Path("runs/demo")
SAMPLES = RUN / "samples"

# One thread: images this small leave a second one nothing but waiting.
TRAIN = f"""vitrail train digits --model nat_mini --imgsz 32
    --set dim=48 depths=2,2 num_heads=3,6 kernel_size=3
    --epochs 60 --batch 64 --lr 2e-3 --drop-path 0.05 --threads 1 --out {RUN}"""
PREDICT = f"vitrail predict {RUN} {SAMPLES}"
EXPLAIN = f"vitrail explain {RUN} {SAMPLES} --out {RUN}/explain"

NEXT = """
Next, on images of your own, in folders named for their classes (photos/cat/*.jpg, photos/dog/*.jpg):

  vitrail data check photos/               what is wrong with them, before any training
  vitrail train photos/ --dry-run          memory and time that it would take
  vitrail train photos/ --weights pretrained   fine-tune public weights
  vitrail models                           what else there is
"""


def run(command: str) -> None:
    """Run one command, shown as one would type it, and stop the recipe if it fails."""
    words = split(command)
    print(f"\n$ {join(words)}", flush=True)
    code = main(words[1:])
    if code:
        sys.exit(code)


def write_samples(count: int = 8) -> None:
    """Write some test images as files, each named for its place in the data set."""
    SAMPLES.mkdir(parents=True, exist_ok=True)
    test = open_dataset("digits").require("test")
    for i in range(count):
        test.image(i).save(SAMPLES / f"{Path(test.ids[i]).name}.png")


if __name__ == "__main__":
    shutil.rmtree(RUN, ignore_errors=True)
    run(TRAIN)
    write_samples()
    run(PREDICT)
    run(EXPLAIN)
    print(f"\nsummary {RUN}/summary.json\nreport  {RUN}/report.html\nmaps    {RUN}/explain/index.html\n{NEXT}")
