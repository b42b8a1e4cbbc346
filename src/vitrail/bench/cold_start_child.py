"""Child process of one cold start: `python -m vitrail.bench.cold_start_child TASK`, a task in JSON."""

import json
import sys
from contextlib import nullcontext
from time import perf_counter
from typing import Any

import torch

from vitrail.bench.candidate import Candidate, foreign
from vitrail.bench.inputs import blotches
from vitrail.bench.model_spec import ModelSpec
from vitrail.bench.registry import CANDIDATES
from vitrail.errors import VitrailError
from vitrail.machine.host_memory import peak_of

CALLS = 5  # calls after the first, for the running memory


def begin(task: dict[str, Any]) -> dict[str, Any]:
    """Run a candidate once, then a few times more, and return times and memory.

    Args:
        task: `subject`, `name` of the candidate, its `way`, `batch`, `precision`, `threads`.
    """
    torch.set_num_threads(task["threads"])
    candidate = next(one for one in CANDIDATES if one.name == task["name"])
    with nullcontext() if candidate.ours else foreign(candidate.name):
        begun = _Begun(candidate, task)
        peak = peak_of(begun.start, begun.images.device)
        return {"seconds": begun.seconds, "peak": peak, "running": peak_of(begun.go_on, begun.images.device)}


class _Begun:
    """A single candidate: only its own module is in memory at the start, so that no second copy of the model counts."""

    def __init__(self, candidate: Candidate, task: dict[str, Any]):
        subject = ModelSpec(**task["subject"])
        model = subject.build()
        self.images = blotches(task["batch"], model.config.in_channels, model.preprocess.size).to(subject.device)
        clock = perf_counter()
        ways = candidate.open(model, self.images, task["precision"])  # loads the libraries of the engine
        self.seconds = perf_counter() - clock
        [self.way] = [one for one in ways if one.name == task["way"]]
        self.modules = [self.way.build(model, self.images)]

    def start(self) -> None:
        """Compute the first output."""
        clock = perf_counter()
        self.answer = self.way.start(self.modules.pop(), self.images)
        self.answer(self.images)
        self.seconds += perf_counter() - clock

    def go_on(self) -> None:
        """Compute a few more outputs."""
        for _ in range(CALLS):
            self.answer(self.images)


if __name__ == "__main__":
    try:
        print(json.dumps(begin(json.loads(sys.argv[1]))))
    except VitrailError as error:
        sys.exit(" ".join(str(error).splitlines()))
