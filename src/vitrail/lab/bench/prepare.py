"""From a contender to its answers: every way is prepared and tried, those that may be the fastest are kept."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from time import perf_counter
from typing import NamedTuple

from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.lab.bench.candidate import Answer, Candidate, Unavailable, Variant, foreign
from vitrail.lab.bench.interleaved_timing import Clock, alternate

TRIAL_ROUNDS, TRIAL_SECONDS = 3, 0.3
NEAR = 1.25
"""A way that took up to so many times what the fastest one took may be the fastest: trials are short."""

Probe = Callable[[Variant], None]


class Prepared(NamedTuple):
    """A contender that answers.

    Args:
        ways: from images to logits, in each way that may be the fastest; first the one that was in the trial.
        others: what became of its other ways: how much slower they were, or why they do not work.
    """

    ways: dict[str, Answer]
    others: dict[str, str]

    @property
    def way(self) -> str:
        """The fastest way of the trial."""
        return next(iter(self.ways))

    @property
    def answer(self) -> Answer:
        """From images to logits, in that way."""
        return self.ways[self.way]


def make_ready(
    contender: Candidate,
    model: nn.Module,
    example: Tensor,
    precision: str,
    probe: Probe = lambda way: None,
    clock: Clock = perf_counter,
) -> Prepared:
    """Prepare every way of a contender and keep those that may be the fastest.

    Args:
        contender: who.
        model: ours, in fp32 and evaluation mode; it stays as it is.
        example: a batch of the shape that will be asked.
        precision: `fp32` or `bf16`.
        probe: asked about each way of a fragile contender first; raises `Unavailable` where it should not be taken.
        clock: gives the time in seconds.

    Raises:
        Unavailable: none of its ways works.
    """
    answers: dict[str, Answer] = {}
    others: dict[str, str] = {}
    for way in contender.open(model, example, precision):
        try:
            if contender.fragile:
                probe(way)
            answers[way.name] = first_answer(contender, way, model, example)
        except VitrailError as error:
            others[way.name] = str(error)
    if not answers:
        raise Unavailable("; ".join(dict.fromkeys(others.values())))
    if len(answers) == 1:
        return Prepared(answers, others)
    calls = {name: partial(answer, example) for name, answer in answers.items()}
    turns = alternate(calls, TRIAL_ROUNDS, TRIAL_SECONDS, clock=clock)
    best, *slower = sorted(answers, key=lambda name: turns[name].spread.median)
    # Round by round, so that a machine which changes its speed does so for both.
    times = {name: turns[best].times_as_fast(turns[name]).median for name in slower}
    others |= {name: f"{ratio:.2f} times its time in a trial" for name, ratio in times.items() if ratio > NEAR}
    return Prepared({name: answers[name] for name in (best, *slower) if name not in others}, others)


def first_answer(contender: Candidate, way: Variant, model: nn.Module, example: Tensor) -> Answer:
    """Prepare one way and ask it once.

    Raises:
        Unavailable: another library failed at it; what goes wrong in ours is raised as it is.
    """
    with nullcontext() if contender.ours else foreign(contender.name):
        answer = way.prepare(model, example)
        answer(example)
    return answer
