"""Interleaved timing: all candidates run in the same minutes, so a drift of the machine affects all of them.

    round 0:  a a a   b b b   c c c
    round 1:  b b b   c c c   a a a
    round 2:  c c c   a a a   b b b

The order rotates, so that no candidate always runs after the one that leaves the worst caches or clock rate. The ratio
of two candidates is computed within each round.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

from vitrail.bench.statistics import Quantiles, quantile

Clock = Callable[[], float]


@dataclass(frozen=True)
class Timings:
    """The times of one candidate.

    Args:
        seconds: one tuple per round, one time per call.
    """

    seconds: tuple[tuple[float, ...], ...]

    @property
    def rounds(self) -> tuple[float, ...]:
        """Seconds per call in each round: the median of its calls."""
        return tuple(quantile(calls, 0.5) for calls in self.seconds)

    @property
    def spread(self) -> Quantiles:
        """Quantiles of the seconds per call over the rounds."""
        return Quantiles.of(self.rounds)

    @property
    def p95(self) -> float:
        """95th percentile of the seconds of all calls."""
        return quantile([call for calls in self.seconds for call in calls], 0.95)

    def times_as_fast(self, other: "Timings") -> Quantiles:
        """Return the speedup over `other`, round by round.

        Example:
            >>> Timings(((1.0,), (2.0,))).times_as_fast(Timings(((3.0,), (6.0,)))).median
            3.0
        """
        return Quantiles.of(theirs / ours for ours, theirs in zip(self.rounds, other.rounds, strict=True))


def alternate(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int = 7,
    seconds: float = 0.5,
    most: int = 200,
    clock: Clock = perf_counter,
    on_round: Callable[[int], None] = lambda done: None,
) -> dict[str, Timings]:
    """Time candidates in interleaved turns.

    The first call of a turn warms the caches and is not counted, unless it alone fills the turn.

    Args:
        candidates: the functions to time, by name; a call must block until its work is done.
        rounds: number of rounds.
        seconds: minimum length of a turn; at least one call is counted.
        most: maximum number of counted calls in a turn.
        clock: returns the time in seconds.
        on_round: called after each round with the number of finished rounds.
    """
    names = list(candidates)
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in rotated(names, number):
            times[name].append(_turn(candidates[name], seconds, most, clock))
        on_round(number + 1)
    return {name: Timings(tuple(turns)) for name, turns in times.items()}


def rotated(names: list[str], number: int) -> list[str]:
    """Return the order of a round.

    Example:
        >>> [rotated(["a", "b", "c"], number) for number in range(2)]
        [['a', 'b', 'c'], ['b', 'c', 'a']]
    """
    start = number % len(names) if names else 0
    return names[start:] + names[:start]


def _turn(call: Callable[[], object], seconds: float, most: int, clock: Clock) -> tuple[float, ...]:
    warming = _timed(call, clock)
    if warming >= seconds:
        return (warming,)
    times = [_timed(call, clock)]
    while sum(times) < seconds and len(times) < most:
        times.append(_timed(call, clock))
    return tuple(times)


def _timed(call: Callable[[], object], clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start
