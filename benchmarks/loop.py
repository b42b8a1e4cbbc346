"""Overhead of the training loop over the bare step, and throughput of the batch that `batch=auto` chooses.

    python benchmarks/loop.py                                    # ViT-Ti at 64 pixels, batches of 64
    python benchmarks/loop.py --model swin_tiny_patch4_window7_224 --imgsz 224 --batch 16 --set
    python benchmarks/loop.py --grid                             # then throughput by batch, as far as auto goes

Three loops take turns over the same batches, which are in memory already, with one model and one optimizer: the bare
step (forward, backward, optimizer), the same as in a careful script (the loss is read, the gradient clipped),
and ours, with all it does: drawing a seed, setting the rate, looking for NaN, books, logs. Each round gives a ratio of
neighbours in time, and the median of the rounds is told with the middle half of them. Goal: below 3 %.

The grid doubles the batch up to the one that `batch=auto` finds for the memory of this machine, at most the training
set of 1,259 images; its throughput should be within 10 % of the best.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from vitrail.training.batch_size import largest_batch
from vitrail.training.config import TrainConfig
from vitrail.training.distributed import connect
from vitrail.training.log import RunLog
from vitrail.training.loop import train_epoch
from vitrail.training.probe import try_step, untouched
from vitrail.training.reporters import LineReporter, NullReporter
from vitrail.training.schedule import Steps
from vitrail.training.setup import open_data
from vitrail.training.signals import StopRequest
from vitrail.training.train import make_run
from vitrail.training.trainer import Trainer

ENDLESS = 10**9
GOAL, NEAR = 0.03, 0.10


class Held:
    """Batches in memory, in place of a loader."""

    def __init__(self, loader: Any, count: int):
        self.dataset, self.steps = loader.dataset, count
        self.batches = list(islice(cycle(islice(loader.epoch(), count)), count))

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Any]:
        """Go through them from a step on."""
        return iter(self.batches[start_step:])


def bare(run: Trainer, finish: Callable[[Any, torch.Tensor], object]) -> None:
    """Make the steps as a script would write them; `finish` comes between gradient and update."""
    config: Any = run.config
    run.model.train()
    batches: Any = run.train_data.epoch()
    for batch in batches:
        with run.arithmetic():
            logits = run.model(batch.images)
            loss = cross_entropy(logits.float(), batch.labels, label_smoothing=config.smoothing)
        loss.backward()
        finish(run, loss)
        run.optimizer.step()
        run.optimizer.zero_grad()


def nothing(run: Trainer, loss: torch.Tensor) -> None:
    """Add nothing to the bare step."""


def careful(run: Trainer, loss: torch.Tensor) -> None:
    """Read the loss and clip the gradient."""
    loss.item()
    clip_grad_norm_(run.model.parameters(), run.config.clip_grad)


LOOPS: dict[str, Callable[[Trainer], None]] = {
    "bare step": lambda run: bare(run, nothing),
    "bare step, read and clipped": lambda run: bare(run, careful),
    "our loop": train_epoch,
}


def seconds(work: Callable[[], object]) -> float:
    """Time some work."""
    start = perf_counter()
    work()
    return perf_counter() - start


def compare(run: Trainer, rounds: int) -> dict[str, list[float]]:
    """Let the loops take turns, each round in another order; return seconds by loop."""
    times: dict[str, list[float]] = {name: [] for name in LOOPS}
    for loop in LOOPS.values():
        loop(run)
    for number in range(rounds):
        names = [*LOOPS, *LOOPS][number % len(LOOPS) :][: len(LOOPS)]
        for name in names:
            times[name].append(seconds(lambda name=name: LOOPS[name](run)))
    return times


def tell_overhead(times: dict[str, list[float]], steps: int) -> None:
    """Print a line for each loop, and the cost of ours over each of the others."""
    for name, taken in times.items():
        print(f"{name:<30}{1000 * median(taken) / steps:9.3f} ms a step")
    for name in ("bare step", "bare step, read and clipped"):
        extra = [ours / other - 1 for ours, other in zip(times["our loop"], times[name], strict=True)]
        low, _, high = quantiles(extra, n=4)
        verdict = "below" if median(extra) < GOAL else "NOT below"
        print(
            f"our loop over the {name}: {median(extra):+.2%} (half of the rounds from {low:+.2%} to {high:+.2%}); "
            f"{verdict} {GOAL:.0%}"
        )


def tell_grid(run: Trainer, rounds: int) -> None:
    """Print images a second for batches up to the one that auto finds, in turns."""
    found = largest_batch(run, most=len(run.train_data.dataset))
    sizes = sorted({*(2**i for i in range(3, found.bit_length()) if 2**i < found), found})
    rates: dict[int, list[float]] = {size: [] for size in sizes}
    with untouched(run):
        for number in range(rounds + 1):  # the first round warms up
            for size in sizes:
                batch = run.task.dummy_batch(size)
                taken = seconds(lambda batch=batch: try_step(run, batch))
                rates[size] += [size / taken] * (number > 0)
    best = max(median(each) for each in rates.values())
    for size, each in rates.items():
        name = f"batch {size}{' (auto)' if size == found else ''}"
        print(f"{name:<30}{median(each):10,.1f} img/s  {median(each) / best:.1%} of the best")
    share = median(rates[found]) / best
    print(f"batch=auto reaches {share:.1%} of the best; {'within' if share >= 1 - NEAR else 'NOT within'} {NEAR:.0%}")


def main() -> None:
    """Build a run as `vitrail train` does, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_tiny_patch16_224", help="variant (default: %(default)s)")
    parser.add_argument(
        "--set", nargs="*", default=["patch_size=8"], help="fields of its config (default: patch_size=8)"
    )
    parser.add_argument("--imgsz", type=int, default=64, help="side of the images (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="images a step (default: %(default)s)")
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16 (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    parser.add_argument("--steps", type=int, default=8, help="steps in a turn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each loop (default: %(default)s)")
    parser.add_argument("--grid", action="store_true", help="also measure throughput by batch")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    config = TrainConfig(
        data="digits",
        model=given.model,
        set=tuple(given.set),
        imgsz=given.imgsz,
        batch=given.batch,
        precision=given.precision,
        save_seconds=0,
        epochs=ENDLESS,
    )
    world = connect(config.device, config.parallel)
    run = make_run(config, world, open_data(config), NullReporter(), StopRequest())
    machine = f"{world.device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    run.reporter, run.length = LineReporter(interval=ENDLESS), Steps(ENDLESS)
    run.reporter.begin(
        f"{config.model} at {config.imgsz} pixels, batch {config.batch}, {run.precision}, {machine}", run.task.unit
    )
    loader, run.train_data = run.train_data, Held(run.train_data, given.steps)
    with tempfile.TemporaryDirectory() as place:
        run.log = RunLog(Path(place), {})
        tell_overhead(compare(run, given.rounds), given.steps)
        run.log.close()
    if given.grid:
        run.train_data = loader
        tell_grid(run, max(3, given.rounds // 3))


if __name__ == "__main__":
    sys.exit(main())
