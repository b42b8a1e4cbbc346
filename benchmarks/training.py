"""A training step of ours against timm's: forward, backward, fused AdamW, under autocast; seconds and peak memory.

    python benchmarks/training.py                         # Swin-T, bf16, batches of 16
    python benchmarks/training.py --model vit_tiny_patch16_224 poolformer_s12 mixer_s16_224
    python benchmarks/training.py --model vit_small_patch16_224 --batch 32 --precision fp32

All start from the same weights and learn the same images without dropped paths, so the losses and the sizes of the
gradients of their first two steps must agree. Each has a process of its own, for its memory and since allocators are
tuned for a whole process, and they take turns. Ours is as `vitrail train` makes it: fused blocks, and memory that is
kept from step to step. timm's is there twice: as it comes, and with its memory kept as well. Of the peak of memory the
second column leaves out what the process held before there was a model: Python, PyTorch and the libraries it read.

timm has no NAT. Its peers are our own model, fused blocks and kept memory and all, with another operator: `unfold` (see
neighborhood.py), and the tiles of ours that run where there is no compiler. NATTEN's path for CPUs, PyTorch's Flex
Attention, has no gradient there.

    python benchmarks/training.py --model nat_tiny
"""

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import get_total_norm

from neighborhood import unfold_attend, with_operator
from sheet import DTYPES, begin, flags, precision_flag, show, take_turns, tell
from vitrail.bench.candidate import CandidateUnavailable
from vitrail.bench.inputs import blotches
from vitrail.bench.interleaved_timing import Timings
from vitrail.bench.libraries import from_timm
from vitrail.bench.model_spec import ModelSpec
from vitrail.bench.report import amount, ratio
from vitrail.bench.statistics import Quantiles
from vitrail.fused.train_blocks import fuse_for_training
from vitrail.inference.flops import counted_macs
from vitrail.kernels.neighborhood import tiles
from vitrail.machine.host_memory import disable_malloc_trim, peak_of, resident
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttend
from vitrail.tasks.table import Table

CANDIDATES = ("vitrail", "timm", "timm, memory kept")
OPERATORS = {"unfold": unfold_attend, "tiles": tiles}
COLUMNS = (
    *("candidate", "img/s", "s a step", "ours is × as fast", "peak MB", "of it for the model"),
    *("first losses", "first gradient"),
)
NEAR = {"fp32": 1e-4, "bf16": 2e-2}  # largest difference of losses and of sizes of gradients, as a share


class Step:
    """A model with its optimizer and a batch; each call makes one update and returns the loss.

    Args:
        model: anything from images to logits; it is put in training mode.
        images: images `(B, C, Y, X)`.
        classes: number of its classes.
        precision: `fp32`, or `bf16` for autocast.
    """

    def __init__(self, model: nn.Module, images: torch.Tensor, classes: int, precision: str):
        self.model, self.images, self.precision = model.train(), images, precision
        self.labels = torch.arange(len(images)) % classes
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def __call__(self) -> float:
        loss = self.learn()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def learn(self) -> float:
        """Add up gradients, without an update."""
        with torch.autocast("cpu", DTYPES[self.precision], enabled=self.precision != "fp32"):
            loss = cross_entropy(self.model(self.images).float(), self.labels)
        loss.backward()
        return loss.item()


def build(name: str, options: Namespace) -> Step:
    """Build a candidate, ready for its first step.

    Raises:
        CandidateUnavailable: timm has no such model.
    """
    ours = ModelSpec(options.model[0], imgsz=options.imgsz, set=("drop_path=0", *options.set)).build()
    images = blotches(options.batch, ours.config.in_channels, ours.preprocess.size)
    if name != "timm":
        disable_malloc_trim()
    if name.startswith("timm"):
        model = from_timm(ours, ours.preprocess.size, drop_path_rate=0.0)
    else:
        model = fuse_for_training(with_operator(ours, OPERATORS[name]) if name in OPERATORS else ours)
    return Step(model, images, ours.config.num_classes, options.precision)


def candidates(model: str, options: Namespace) -> tuple[str, ...]:
    """Return the candidates that can train a model; `unfold` has no dilation."""
    ours = ModelSpec(model, imgsz=options.imgsz, set=options.set).build()
    dilations = [part.dilation for part in ours.modules() if isinstance(part, NeighborhoodAttend)]
    others = () if not dilations else ("unfold", "tiles") if max(dilations) == 1 else ("tiles",)
    return (*CANDIDATES, *others)


def warm_up(step: Step) -> dict[str, Any]:
    """Make two steps, the second of which finds the optimizer's state in place; return losses and memory."""
    said: dict[str, Any] = {"losses": [], "norms": []}
    parameters = [*step.model.parameters()]

    def twice() -> None:
        for _ in range(2):
            said["losses"].append(step.learn())
            said["norms"].append(get_total_norm([p.grad for p in parameters if p.grad is not None]).item())
            step.optimizer.step()
            step.optimizer.zero_grad()

    return {**said, "peak": peak_of(twice, torch.device("cpu"))}


def begin_alone(name: str, options: Namespace) -> None:
    """Run one candidate: make two steps and print the result, then one step for each line that is read."""
    held = resident()
    try:
        step = build(name, options)
    except CandidateUnavailable as error:
        print(json.dumps({"missing": str(error)}), flush=True)
        return
    print(json.dumps({**warm_up(step), "held": held}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(step()), flush=True)


class Alone:
    """A candidate in a process of its own; each call is a step.

    Args:
        name: which one.
        model: model to train.
        options: the flags.
    """

    def __init__(self, name: str, model: str, options: Namespace):
        words = [
            *("--model", model, "--batch", str(options.batch), "--precision", options.precision),
            *("--threads", str(torch.get_num_threads()), "--alone", name),
            *(("--imgsz", str(options.imgsz)) if options.imgsz else ()),
            *(("--set", *options.set) if options.set else ()),
        ]
        command = [sys.executable, __file__, *words]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.said = self._answer()

    def __call__(self) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._answer()

    def end(self) -> None:
        """Let the process end."""
        self.process.communicate()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a candidate ended with {self.process.wait()}; what it said is above")
        return json.loads(line)


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show; leaves with 1 where the first steps differ."""
    parser = flags(__doc__)
    precision_flag(parser)
    parser.add_argument(
        "--model", nargs="+", default=["swin_tiny_patch4_window7_224"], help="names in the catalogue, a table for each"
    )
    parser.add_argument("--imgsz", type=int, help="side of the images (default: the model's)")
    parser.add_argument("--set", nargs="+", default=[], help="fields of the config to replace, as name=value")
    parser.add_argument("--batch", type=int, default=16, help="images in a batch (default: 16)")
    parser.add_argument(
        "--alone", choices=(*CANDIDATES, *OPERATORS), help="be one candidate, a step for each line of input"
    )
    options = begin(parser, words)
    if options.alone:
        begin_alone(options.alone, options)
        return 0
    measured = [measure(model, options) for model in options.model]
    show("training", "Training step", [table for table, _ in measured], options)
    return 0 if all(agree for _, agree in measured) else 1


def measure(model: str, options: Namespace) -> tuple[Table, bool]:
    """Interleave the candidates' training steps; return times and whether their first steps agree."""
    steps: dict[str, Alone] = {}
    notes: list[str] = []
    for name in candidates(model, options):
        tell(f"{model}: first steps of {name}")
        step = Alone(name, model, options)
        if "missing" in step.said:
            notes.append(f"{name} did not take part: {step.said['missing']}")
        else:
            steps[name] = step
    calls: dict[str, Callable[[], object]] = {**steps}
    turns = take_turns(calls, options)
    for step in steps.values():
        step.end()
    off = apart([step.said for step in steps.values()])
    agree = off <= NEAR[options.precision]
    notes += [] if agree else [f"The first steps differ by {off:.1e}: these figures do not count."]
    macs, unknown = counted_macs(model)
    notes.append(unknown or f"{(macs or 0) / 1e9:.2f} G multiply-adds an image at its own size, forward alone.")
    rows = [row(name, step.said, turns, options.batch) for name, step in steps.items()]
    title = f"{model}, {options.precision}, batches of {options.batch}"
    return Table(title, COLUMNS, rows, right=COLUMNS[1:], notes=notes), agree


def row(name: str, said: dict[str, Any], turns: dict[str, Timings], batch: int) -> list[str]:
    """Return the measurements of one candidate as text."""
    rate = Quantiles.of(batch / seconds for seconds in turns[name].rounds)
    times = "" if name == "vitrail" else ratio(turns["vitrail"].times_as_fast(turns[name]))
    memory = [f"{size / 2**20:,.0f}" for size in (said["peak"], said["peak"] - said["held"])]
    firsts = " ".join(f"{loss:.5f}" for loss in said["losses"])
    return [name, amount(rate), f"{turns[name].spread.median:.3f}", times, *memory, firsts, f"{said['norms'][0]:.4f}"]


def apart(said: Sequence[dict[str, Any]]) -> float:
    """Return the largest difference of losses and sizes of gradients from ours, as a share of ours."""
    ours = [*said[0]["losses"], *said[0]["norms"]]
    return max(
        abs(mine - theirs) / abs(mine)
        for other in said
        for mine, theirs in zip(ours, [*other["losses"], *other["norms"]], strict=True)
    )


if __name__ == "__main__":
    sys.exit(main())
