"""Figures in words: shares, times, values, and what an evaluation says in three sentences."""

from collections.abc import Mapping
from typing import Any

from vitrail.lab.evaluation import Evaluation


def percent(share: float | None, digits: int = 1) -> str:
    """Write a share as people read it.

    Example:
        >>> percent(0.9751), percent(None)
        ('97.5%', '–')
    """
    return "–" if share is None else f"{100 * share:.{digits}f}%"


def format_value(value: Any) -> str:
    """Write a value of a config or of the machine.

    Example:
        >>> format_value(0.001), format_value([2, 2]), format_value(None), format_value(5717416)
        ('0.001', '2, 2', '–', '5,717,416')
        >>> format_value({"cores": 2, "name": "x"})
        'cores: 2, name: x'
    """
    if value is None or value == "" or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {format_value(each)}" for key, each in value.items())
    return ", ".join(map(format_value, value)) if isinstance(value, list | tuple) else str(value)


def human_count(count: int) -> str:
    """Write a large number with its thousands or millions.

    Example:
        >>> human_count(812), human_count(28_288_354), human_count(86_567)
        ('812', '28.3 M', '86.6 k')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)


def duration(seconds: float) -> str:
    """Write a time as people say it.

    Example:
        >>> duration(9.23), duration(134), duration(7500)
        ('9.2 s', '2 min 14 s', '2 h 5 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def arithmetic(evaluation: Evaluation) -> str:
    """Say which form of the model answered, in which precision."""
    faster = "" if evaluation.speedup is None else f", {evaluation.speedup:.1f}x as fast as the plain one"
    return f"{evaluation.precision} in its {evaluation.form} form{faster}"


def summary_text(evaluation: Evaluation) -> str:
    """Say what the figures of an evaluation mean."""
    low, high = percent(evaluation.top1.low), percent(evaluation.top1.high)
    share, confidence = evaluation.top1.value or 0.0, evaluation.calibration.confidence
    parts = [
        f"Of {evaluation.samples:,} pictures in {evaluation.data}, {percent(share)} are named right"
        f" (95% interval {low} to {high})."
    ]
    for truth, said, count in evaluation.most_confused(1):
        if count > 1:
            parts.append(f"The commonest mistake is to take “{truth}” for “{said}” ({count} times).")
    gap = confidence - share
    if abs(gap) < 0.02:
        parts.append(f"Its mean confidence, {percent(confidence)}, is close to that, as it should be.")
    else:
        side, verdict = ("above", "surer") if gap > 0 else ("below", "less sure")
        parts.append(
            f"Its mean confidence, {percent(confidence)}, is {abs(100 * gap):.1f} points {side} that:"
            f" it is {verdict} than it should be."
        )
    return " ".join(parts)
