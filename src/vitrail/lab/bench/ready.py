"""From a contender to its answers: every way is prepared and tried, the fastest is kept."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from time import perf_counter
from typing import NamedTuple

from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.lab.bench.contender import Answer, Contender, Unavailable, Way, foreign
from vitrail.lab.bench.turns import Clock, alternate

TRIAL_ROUNDS, TRIAL_SECONDS = 3, 0.3

Probe = Callable[[Way], None]


class Ready(NamedTuple):
    """A contender that answers.

    Args:
        way: name of the way that was kept.
        answer: from pictures to logits.
        others: what became of its other ways: a time, or why not.
    """

    way: str
    answer: Answer
    others: dict[str, str]


def make_ready(
    contender: Contender,
    model: nn.Module,
    example: Tensor,
    precision: str,
    probe: Probe = lambda way: None,
    clock: Clock = perf_counter,
) -> Ready:
    """Prepare every way of a contender and keep the fastest.

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
    best = next(iter(answers))
    if len(answers) > 1:
        calls = {name: partial(answer, example) for name, answer in answers.items()}
        times = alternate(calls, TRIAL_ROUNDS, TRIAL_SECONDS, clock=clock)
        best = min(times, key=lambda name: times[name].spread.median)
        others |= {name: f"{1e3 * turns.spread.median:.1f} ms" for name, turns in times.items() if name != best}
    return Ready(best, answers[best], others)


def first_answer(contender: Contender, way: Way, model: nn.Module, example: Tensor) -> Answer:
    """Prepare one way and ask it once.

    Raises:
        Unavailable: another library failed at it; what goes wrong in ours is raised as it is.
    """
    with nullcontext() if contender.ours else foreign(contender.name):
        answer = way.prepare(model, example)
        answer(example)
    return answer
