"""The process in which one contender begins alone: `python -m vitrail.lab.bench.child TASK`, a task in JSON."""

import json
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch

from vitrail.lab.bench.inputs import blotches
from vitrail.lab.bench.ready import first_answer
from vitrail.lab.bench.registry import CONTENDERS
from vitrail.lab.bench.subject import Subject
from vitrail.training.memory import peak_of

CALLS = 5  # answers after the first, over which the running memory is taken


def begin(task: dict[str, Any]) -> dict[str, Any]:
    """Build the model, let the contender answer once, then a few times more, and return what that took.

    Args:
        task: `subject`, `name` of the contender, `way` (the last of its ways where it names none), `batch`,
            `precision`, `threads`.
    """
    torch.set_num_threads(task["threads"])
    subject = Subject(**task["subject"])
    model = subject.build()
    images = blotches(task["batch"], model.config.in_channels, model.preprocess.size).to(subject.device)
    contender = next(one for one in CONTENDERS if one.name == task["name"])
    held: list[Any] = []

    def until_first() -> None:
        ways = contender.open(model, images, task["precision"])
        [way] = [one for one in ways if one.name == task["way"]] or ways[-1:]
        held.append(first_answer(contender, way, model, images))

    seconds, peak = _timed_peak(until_first, images.device)
    running = peak_of(lambda: [held[0](images) for _ in range(CALLS)], images.device)
    return {"seconds": seconds, "peak": peak, "running": running}


def _timed_peak(work: Callable[[], None], device: torch.device) -> tuple[float, int]:
    start = perf_counter()
    peak = peak_of(work, device)
    return perf_counter() - start, peak


if __name__ == "__main__":
    print(json.dumps(begin(json.loads(sys.argv[1]))))
