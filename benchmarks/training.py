"""A training step of ours against timm's: forward, backward, fused AdamW, under autocast; seconds and peak memory.

    python benchmarks/training.py                         # Swin-T, bf16, batches of 16
    python benchmarks/training.py --model vit_small_patch16_224 --batch 32 --precision fp32

Both start from the same weights and learn the same pictures without dropped paths, so the losses of their first steps
must agree; they take turns in one process, and each has a process of its own for its peak memory.
"""

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sheet import DTYPES, begin, flags, precision_flag, show, take_turns, tell
from vitrail.lab.bench.contender import Unavailable
from vitrail.lab.bench.inputs import blotches
from vitrail.lab.bench.libraries import from_timm
from vitrail.lab.bench.page import amount, ratio
from vitrail.lab.bench.spread import Spread
from vitrail.lab.bench.subject import Subject
from vitrail.lab.bench.table import Table
from vitrail.lab.cost import count_macs
from vitrail.training.memory import peak_of

CONTENDERS = ("vitrail", "timm")
NEAR = {"fp32": 1e-4, "bf16": 2e-2}  # largest difference of two first losses, as a share


class Step:
    """A model with its optimizer and a batch; each call makes one update and returns the loss.

    Args:
        model: anything from pictures to logits; it is put in training mode.
        images: pictures `(B, C, Y, X)`.
        classes: number of its classes.
        precision: `fp32`, or `bf16` for autocast.
    """

    def __init__(self, model: nn.Module, images: torch.Tensor, classes: int, precision: str):
        self.model, self.images, self.precision = model.train(), images, precision
        self.labels = torch.arange(len(images)) % classes
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def __call__(self) -> float:
        with torch.autocast("cpu", DTYPES[self.precision], enabled=self.precision != "fp32"):
            loss = cross_entropy(self.model(self.images).float(), self.labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def build(name: str, options: Namespace) -> Step:
    """Build a contender, ready for its first step.

    Raises:
        Unavailable: timm has no such model.
    """
    ours = Subject(options.model, imgsz=options.imgsz, set=("drop_path=0", *options.set)).build()
    images = blotches(options.batch, ours.config.in_channels, ours.preprocess.size)
    model = ours if name == "vitrail" else from_timm(ours, ours.preprocess.size, drop_path_rate=0.0)
    return Step(model, images, ours.config.num_classes, options.precision)


def peak(name: str, options: Namespace) -> int:
    """Return the peak memory of two steps, in a process of its own; the second finds the optimizer's state in place."""
    words = [
        *("--model", options.model, "--batch", str(options.batch), "--precision", options.precision),
        *("--threads", str(torch.get_num_threads()), "--alone", name),
        *(("--imgsz", str(options.imgsz)) if options.imgsz else ()),
        *(("--set", *options.set) if options.set else ()),
    ]
    done = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["peak"]


def begin_alone(name: str, options: Namespace) -> None:
    """Make two steps and print their peak memory."""
    step = build(name, options)
    print(json.dumps({"peak": peak_of(lambda: (step(), step()), torch.device("cpu"))}))


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show; leaves with 1 where the first losses differ."""
    parser = flags(__doc__)
    precision_flag(parser)
    parser.add_argument("--model", default="swin_tiny_patch4_window7_224", help="a name in the catalogue")
    parser.add_argument("--imgsz", type=int, help="side of the pictures (default: the model's)")
    parser.add_argument("--set", nargs="+", default=[], help="fields of the config to replace, as name=value")
    parser.add_argument("--batch", type=int, default=16, help="pictures in a batch (default: 16)")
    parser.add_argument("--alone", choices=CONTENDERS, help="measure one contender's memory in this process")
    options = begin(parser, words)
    if options.alone:
        begin_alone(options.alone, options)
        return 0
    steps: dict[str, Step] = {}
    notes: list[str] = []
    for name in CONTENDERS:
        tell(f"preparing {name}")
        try:
            steps[name] = build(name, options)
        except Unavailable as error:
            notes.append(f"{name} did not take part: {error}")
    losses = {name: step() for name, step in steps.items()}
    calls: dict[str, Callable[[], object]] = {name: partial(step) for name, step in steps.items()}
    turns = take_turns(calls, options)
    rows = []
    for name in steps:
        tell(f"memory of {name}, in a process of its own")
        rate = Spread.of(options.batch / seconds for seconds in turns[name].rounds)
        times = "" if name == "vitrail" else ratio(turns["vitrail"].times_as_fast(turns[name]))
        memory = f"{peak(name, options) / 2**20:,.0f}"
        rows.append([name, amount(rate), f"{turns[name].spread.median:.3f}", times, memory, f"{losses[name]:.5f}"])
    agree = max(losses.values()) - min(losses.values()) <= NEAR[options.precision] * losses["vitrail"]
    notes += [] if agree else ["The first losses differ: these figures do not count."]
    notes.append(f"{count_macs(options.model) / 1e9:.2f} G multiply-adds a picture at its own size, forward alone.")
    columns = ["contender", "img/s", "s a step", "ours is × as fast", "peak MB", "first loss"]
    title = f"{options.model}, {options.precision}, batches of {options.batch}"
    show("training", "Training step", [Table(title, columns, rows, right=columns[1:], notes=notes)], options)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
