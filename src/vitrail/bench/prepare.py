"""Preparation of candidates: every variant is built and tried, and the fastest ones are kept."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from time import perf_counter
from typing import NamedTuple

from torch import Tensor, nn

from vitrail.bench.candidate import Answer, Candidate, CandidateUnavailable, Variant, foreign
from vitrail.bench.interleaved_timing import Clock, alternate
from vitrail.errors import VitrailError

TRIAL_ROUNDS, TRIAL_SECONDS = 3, 0.3
NEAR = 1.25
"""Maximum slowdown against the fastest variant of a trial to be kept: trials are short, so noisy."""

Probe = Callable[[Variant], None]


class Prepared(NamedTuple):
    """A candidate that is ready to run.

    Args:
        ways: functions from images to logits, one per kept variant, the fastest of the trial first.
        others: results of the other variants: slowdown or failure.
    """

    ways: dict[str, Answer]
    others: dict[str, str]

    @property
    def way(self) -> str:
        """The fastest variant of the trial."""
        return next(iter(self.ways))

    @property
    def answer(self) -> Answer:
        """Function from images to logits of that variant."""
        return self.ways[self.way]


def prepare_candidate(
    candidate: Candidate,
    model: nn.Module,
    example: Tensor,
    precision: str,
    probe: Probe = lambda way: None,
    clock: Clock = perf_counter,
) -> Prepared:
    """Build every variant of a candidate and keep those that may be the fastest.

    Args:
        candidate: the candidate.
        model: our model, in fp32 and evaluation mode; it is not modified.
        example: a batch of the shape of the benchmark.
        precision: `fp32` or `bf16`.
        probe: called first for each variant of a fragile candidate; raises `CandidateUnavailable` if it fails.
        clock: returns the time in seconds.

    Raises:
        CandidateUnavailable: none of its variants works.
    """
    answers: dict[str, Answer] = {}
    others: dict[str, str] = {}
    for way in candidate.open(model, example, precision):
        try:
            if candidate.fragile:
                probe(way)
            answers[way.name] = first_output(candidate, way, model, example)
        except VitrailError as error:
            others[way.name] = str(error)
    if not answers:
        raise CandidateUnavailable("; ".join(dict.fromkeys(others.values())))
    if len(answers) == 1:
        return Prepared(answers, others)
    calls = {name: partial(answer, example) for name, answer in answers.items()}
    turns = alternate(calls, TRIAL_ROUNDS, TRIAL_SECONDS, clock=clock)
    best, *slower = sorted(answers, key=lambda name: turns[name].spread.median)
    # Interleaved, so that a drift of the machine affects both.
    times = {name: turns[best].times_as_fast(turns[name]).median for name in slower}
    others |= {name: f"{ratio:.2f} times its time in a trial" for name, ratio in times.items() if ratio > NEAR}
    return Prepared({name: answers[name] for name in (best, *slower) if name not in others}, others)


def first_output(candidate: Candidate, way: Variant, model: nn.Module, example: Tensor) -> Answer:
    """Build one variant and run it once.

    Raises:
        CandidateUnavailable: another library failed; exceptions of Vitrail are raised unchanged.
    """
    with nullcontext() if candidate.ours else foreign(candidate.name):
        answer = way.prepare(model, example)
        answer(example)
    return answer
