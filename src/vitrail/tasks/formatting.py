"""Formatting of fractions, durations, config values and large counts."""

from collections.abc import Mapping


def percent(share: float | None, digits: int = 1) -> str:
    """Format a fraction as a percentage.

    Example:
        >>> percent(0.9751), percent(None)
        ('97.5%', '–')
    """
    return "–" if share is None else f"{100 * share:.{digits}f}%"


def format_value(value: object) -> str:
    """Format a value of a config or of the machine.

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
    """Format a large number in thousands or millions.

    Example:
        >>> human_count(812), human_count(28_288_354), human_count(86_567)
        ('812', '28.3 M', '86.6 k')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)


def duration(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours.

    Example:
        >>> duration(9.23), duration(134), duration(7500)
        ('9.2 s', '2 min 14 s', '2 h 5 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def model_words(precision: str, form: str) -> str:
    """Return the compute precision and the implementation (`plain` or `fast`) that ran.

    Example:
        >>> model_words("bf16", "fast"), model_words("fp32", "plain")
        ('bf16, optimized model', 'fp32, plain model')
    """
    return f"{precision}, {'optimized' if form == 'fast' else form} model"
