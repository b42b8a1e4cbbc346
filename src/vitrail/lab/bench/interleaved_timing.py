"""Timing turn by turn: what is compared runs in the same minutes, so a change of the machine meets everybody.

    round 0:  a a a   b b b   c c c
    round 1:  b b b   c c c   a a a
    round 2:  c c c   a a a   b b b

The order rotates, so that nobody always follows the one that leaves the caches, or the clock rate, worst. The ratio of
two contenders is taken within each round.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

from vitrail.lab.bench.statistics import Quantiles, quantile

Clock = Callable[[], float]


@dataclass(frozen=True)
class Timings:
    """The times of one contender.

    Args:
        seconds: one tuple a round, one time a call.
    """

    seconds: tuple[tuple[float, ...], ...]

    @property
    def rounds(self) -> tuple[float, ...]:
        """Seconds of a call in each round: the median of its calls."""
        return tuple(quantile(calls, 0.5) for calls in self.seconds)

    @property
    def spread(self) -> Quantiles:
        """Seconds of a call over the rounds."""
        return Quantiles.of(self.rounds)

    @property
    def p95(self) -> float:
        """Seconds that 95 % of all calls stayed below."""
        return quantile([call for calls in self.seconds for call in calls], 0.95)

    def times_as_fast(self, other: "Timings") -> Quantiles:
        """Say how many times as fast this one is as `other`, round by round.

        Example:
            >>> Timings(((1.0,), (2.0,))).times_as_fast(Timings(((3.0,), (6.0,)))).median
            3.0
        """
        return Quantiles.of(theirs / ours for ours, theirs in zip(self.rounds, other.rounds, strict=True))


def alternate(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int = 7,
    seconds: float = 0.5,
    most: int = 200,
    clock: Clock = perf_counter,
    tell: Callable[[int], None] = lambda done: None,
) -> dict[str, Timings]:
    """Time contenders turn by turn.

    The first call of a turn brings the contender's weights back into the caches and is not counted, unless it alone
    fills the turn.

    Args:
        contenders: what to call, by name; a call must return when its work is done.
        rounds: how often everybody has a turn.
        seconds: least length of a turn; at least one call is counted whatever its length.
        most: most calls that are counted in a turn.
        clock: gives the time in seconds.
        tell: told how many rounds are done, after each.
    """
    names = list(contenders)
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in rotated(names, number):
            times[name].append(_turn(contenders[name], seconds, most, clock))
        tell(number + 1)
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
