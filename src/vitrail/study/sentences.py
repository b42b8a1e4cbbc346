"""Parts of verdicts, computed from intervals: claims need an interval that shows them."""

from collections.abc import Sequence

from vitrail.study.intervals import Estimate, Ranking


def points(value: Estimate, unit: str = "points", scale: float = 100.0, digits: int = 1) -> str:
    """Describe a difference.

    Example:
        >>> points(Estimate(0.021, 0.01, 0.032, 3))
        '2.1 points more (1.0 to 3.2)'
        >>> points(Estimate(-0.02, -0.05, 0.01, 3))
        'no difference shown (-5.0 to 1.0 points)'
        >>> points(Estimate(0.02, float("-inf"), float("inf"), 1))
        'too few seeds for an interval (2.0 points)'
    """
    mean, low, high = (scale * part for part in value[:3])
    if not value.known:
        return f"too few seeds for an interval ({mean:.{digits}f} {unit})"
    if value.sign == 0:
        return f"no difference shown ({low:.{digits}f} to {high:.{digits}f} {unit})"
    if value.sign > 0:
        return f"{mean:.{digits}f} {unit} more ({low:.{digits}f} to {high:.{digits}f})"
    return f"{-mean:.{digits}f} {unit} less ({-high:.{digits}f} to {-low:.{digits}f})"


def listed(names: Sequence[str]) -> str:
    """Join names.

    Example:
        >>> listed(["a", "b", "c"]), listed(["a"])
        ('a, b and c', 'a')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def ranked(ranking: Ranking, subject: str) -> str:
    """Describe a ranking: the first, or the group whose intervals overlap.

    Example:
        >>> gap = Estimate(0.1, 0.0, 0.2, 3)
        >>> ranked(Ranking(["a", "b", "c"], ["a", "b"], {"b": gap, "c": gap}), "accuracy")
        'by accuracy, a and b cannot be ranked (their intervals overlap) and c falls behind them'
        >>> ranked(Ranking(["a", "b"], ["a"], {"b": gap}), "accuracy")
        'by accuracy, a is ahead of b'
    """
    if len(ranking.order) > 1 and not ranking.gaps:
        return f"by {subject}, {listed(ranking.order)} have too few seeds for a ranking"
    rest = [name for name in ranking.order if name not in ranking.tied]
    if not rest:
        return f"by {subject}, {listed(ranking.tied)} cannot be ranked (their intervals overlap)"
    if len(ranking.tied) == 1:
        return f"by {subject}, {ranking.tied[0]} is ahead of {listed(rest)}"
    follow = "falls" if len(rest) == 1 else "fall"
    return (
        f"by {subject}, {listed(ranking.tied)} cannot be ranked (their intervals overlap) "
        f"and {listed(rest)} {follow} behind them"
    )


def sentence(parts: Sequence[str]) -> str:
    """Join the parts of a verdict.

    Example:
        >>> sentence(["all agree", "none is faster"])
        'All agree; none is faster.'
    """
    joined = "; ".join(parts)
    return f"{joined[:1].upper()}{joined[1:]}."
