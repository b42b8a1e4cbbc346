"""Charts of studies: means with intervals, curves with bands, matrices, in the colours of the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite, log10

from vitrail.study.intervals import Estimate
from vitrail.tasks.formatting import format_value
from vitrail.tasks.svg_chart import draw_line, draw_rect, draw_svg, draw_tick, ticks

STYLES = ("a", "b", "c", "d", "e", "f", "g", "h")
"""Classes of the style sheet for curves, in order."""

_WIDTH, _HEIGHT = 360, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 10, 10, 42


@dataclass(frozen=True)
class Curve:
    """A line of a chart, with the interval of each point if there is one.

    Args:
        name: in the legend.
        points: x and the estimate of y.
        dashed: whether the line is dashed, such as a formula.
    """

    name: str
    points: Sequence[tuple[float, Estimate]]
    dashed: bool = False

    @classmethod
    def plain(cls, name: str, x: Sequence[float], y: Sequence[float], dashed: bool = False) -> "Curve":
        """Build a curve without intervals."""
        return cls(name, [(a, Estimate(b, b, b, 1)) for a, b in zip(x, y, strict=True)], dashed)


def number(value: float, percent: bool = False) -> str:
    """Format a value of an axis.

    Example:
        >>> number(0.25, percent=True), number(12000.0), number(0.5), number(2e7)
        ('25%', '12,000', '0.5', '20M')
    """
    if percent:
        return f"{100 * value:.3g}%"
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def with_interval(value: Estimate, percent: bool = False, digits: int = 1) -> str:
    """Format an estimate: `97.1% (96.0 to 98.2)`, or the mean alone without an interval.

    Example:
        >>> with_interval(Estimate(0.971, 0.96, 0.982, 3), percent=True)
        '97.1% (96.0 to 98.2)'
    """
    scale, unit = (100, "%") if percent else (1, "")
    mean = f"{scale * value.mean:.{digits}f}{unit}"
    return f"{mean} ({scale * value.low:.{digits}f} to {scale * value.high:.{digits}f})" if value.known else mean


def line_chart(
    curves: Sequence[Curve], x_name: str, y_name: str, percent: bool = False, log_x: bool = False, log_y: bool = False
) -> str:
    """Draw curves over common axes, with bands where they have intervals, and a legend.

    Args:
        curves: the lines.
        x_name: label of the horizontal axis.
        y_name: description of the vertical axis, for the legend and screen readers.
        percent: write the vertical axis in per cent.
        log_x: logarithmic horizontal axis.
        log_y: logarithmic vertical axis.
    """
    points = [point for curve in curves for point in curve.points]
    if not points:
        return ""
    x_axis = _Scale([x for x, _ in points], log_x, _LEFT, _WIDTH - _RIGHT)
    ends = [y for _, value in points for y in (value.mean, *((value.low, value.high) if value.known else ()))]
    y_axis = _Scale(ends, log_y, _HEIGHT - _BOTTOM, _TOP, pad=0.05)
    floor = _HEIGHT - _BOTTOM
    parts = [
        draw_line("grid", _LEFT, y_axis(y), _WIDTH - _RIGHT, y_axis(y))
        + draw_tick(_LEFT - 7, y_axis(y) + 4, number(y, percent), "end")
        for y in y_axis.ticks()
    ]
    parts += [draw_tick(x_axis(x), floor + 17, number(x)) for x in x_axis.ticks()]
    parts.append(draw_line("axis", _LEFT, floor, _WIDTH - _RIGHT, floor))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="name" x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(x_name)}</text>')
    parts += [_curve(curve, style, x_axis, y_axis) for curve, style in zip(curves, STYLES, strict=False)]
    told = "; ".join(f"{c.name} ends at {number(c.points[-1][1].mean, percent)}" for c in curves if c.points)
    svg = draw_svg(_WIDTH, _HEIGHT, f"{y_name} by {x_name}: {told}.", "".join(parts))
    return f'<p class="axis-name">{escape(y_name)}</p>{svg}{_legend(curves)}'


class _Scale:
    """Maps values to coordinates, linear or logarithmic."""

    def __init__(self, values: Sequence[float], log: bool, start: float, end: float, pad: float = 0.0):
        finite = [value for value in values if isfinite(value) and (value > 0 or not log)] or [1.0]
        self.log, self.start, self.end = log, start, end
        self.low, self.high = (log10(v) if log else v for v in (min(finite), max(finite)))
        pad = (self.high - self.low) * pad or (0.0 if self.high > self.low else 0.5)
        self.low, self.high = self.low - pad, self.high + pad
        self.values = sorted(set(finite))

    def __call__(self, value: float) -> float:
        place = (log10(value) if value > 0 else self.low) if self.log else value
        place = min(max(place, self.low), self.high)
        return self.start + (place - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if not self.log:
            return ticks(self.low, self.high)
        decades = [10.0**power for power in range(int(self.low) - 1, int(self.high) + 2)]
        inside = [d for d in decades if self.low <= log10(d) <= self.high]
        if len(inside) >= 3:
            return inside
        return [v for v in self.values if self.low <= log10(v) <= self.high][:: max(1, len(self.values) // 5)]


def _curve(curve: Curve, style: str, x_axis: _Scale, y_axis: _Scale) -> str:
    points = [(x, value) for x, value in curve.points if isfinite(value.mean)]
    known = [(x, value) for x, value in points if value.known]
    parts = []
    if len(known) > 1:
        upper = [f"{x_axis(x):.1f},{y_axis(value.high):.1f}" for x, value in known]
        lower = [f"{x_axis(x):.1f},{y_axis(value.low):.1f}" for x, value in reversed(known)]
        parts.append(f'<polygon class="band {style}" points="{" ".join(upper + lower)}"/>')
    path = " ".join(f"{x_axis(x):.1f},{y_axis(value.mean):.1f}" for x, value in points)
    dash = " dashed" if curve.dashed else ""
    parts.append(f'<polyline class="line {style}{dash}" points="{path}"/>')
    if len(points) <= 24 and not curve.dashed:
        parts += [
            f'<circle class="dot {style}" cx="{x_axis(x):.1f}" cy="{y_axis(v.mean):.1f}" r="2.8">'
            f"<title>{escape(curve.name)}, {number(x)}: {format_value(round(v.mean, 4))}</title></circle>"
            for x, v in points
        ]
    return "".join(parts)


def _legend(curves: Sequence[Curve]) -> str:
    entries = "".join(
        f'<li><svg viewBox="0 0 22 8" aria-hidden="true"><line class="line {style}{" dashed" if curve.dashed else ""}" '
        f'x1="1" x2="21" y1="4" y2="4"/></svg>{escape(curve.name)}</li>'
        for curve, style in zip(curves, STYLES, strict=False)
    )
    return f'<ul class="legend">{entries}</ul>'


def dot_chart(rows: Sequence[tuple[str, Estimate]], x_name: str, percent: bool = False, zero: bool = False) -> str:
    """Draw a dot with its interval for each name, one below the other.

    Args:
        rows: names and estimates, the first on top.
        x_name: label of the axis.
        percent: write the axis in per cent.
        zero: draw a line at zero, for differences.
    """
    if not rows:
        return ""
    label = min(230, 14 + max(7 * len(name) for name, _ in rows))
    width, height = label + 300, 24 * len(rows) + 46
    ends = [v for _, e in rows for v in (e.mean, *((e.low, e.high) if e.known else ()))] + ([0.0] if zero else [])
    axis = _Scale(ends, False, label, width - 14, pad=0.04)
    floor = 24 * len(rows) + 6
    parts = [draw_line("grid", axis(x), 4, axis(x), floor) for x in axis.ticks()]
    parts += [draw_tick(axis(x), floor + 17, number(x, percent)) for x in axis.ticks()]
    parts += [draw_line("ideal", axis(0), 4, axis(0), floor)] if zero else []
    for i, (name, value) in enumerate(rows):
        y = 18 + 24 * i
        parts.append(f'<text class="name" x="{label - 8}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        if value.known:
            parts.append(draw_line("reach", axis(value.low), y, axis(value.high), y))
        if isfinite(value.mean):
            parts.append(f'<circle class="dot a" cx="{axis(value.mean):.1f}" cy="{y}" r="4"/>')
    middle = (label + width - 14) / 2
    parts.append(f'<text class="name" x="{middle}" y="{height - 4}" text-anchor="middle">{escape(x_name)}</text>')
    told = "; ".join(f"{name} {with_interval(value, percent, 3 - 2 * percent)}" for name, value in rows)
    svg = draw_svg(width, height, f"{x_name}: {told}.", "".join(parts))
    return f'<div style="max-width: {width * 1.12:.0f}px">{svg}</div>'


def matrix(values: Sequence[Sequence[float]], told: str, low: float | None = None, high: float | None = None) -> str:
    """Draw a matrix as squares, darker (lighter in dark mode) for larger values.

    Args:
        values: rows of numbers.
        told: description for screen readers.
        low: value of an empty square; the least by default.
        high: value of a full square; the largest by default.
    """
    flat = [value for row in values for value in row]
    low, high = min(flat) if low is None else low, max(flat) if high is None else high
    span = (high - low) or 1.0
    cells = [draw_rect("empty", 0, 0, len(values[0]), len(values))]
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            share = min(max((value - low) / span, 0.0), 1.0)
            if share > 0.004:
                square = draw_rect("cell", x, y, 1, 1)
                cells.append(square.replace("/>", f' fill-opacity="{share:.2f}"/>'))
    return draw_svg(len(values[0]), len(values), told, "".join(cells))


def regions(labels: Sequence[Sequence[int]], told: str) -> str:
    """Draw a map of region numbers, each number in its colour and written in the middle of its region."""
    parts = []
    places: dict[int, list[tuple[int, int]]] = {}
    for y, row in enumerate(labels):
        for x, label in enumerate(row):
            places.setdefault(label, []).append((x, y))
            square = draw_rect(f"region {STYLES[label % len(STYLES)]}", x, y, 1, 1)
            parts.append(square.replace("/>", f' fill-opacity="{0.55 if label < len(STYLES) else 0.25}"/>'))
    for label, cells in places.items():
        x, y = (sum(values) / len(cells) + 0.5 for values in zip(*cells, strict=True))
        parts.append(f'<text class="mark" x="{x:.2f}" y="{y + 0.32:.2f}" text-anchor="middle">{label}</text>')
    return draw_svg(len(labels[0]), len(labels), told, "".join(parts))


def gallery(tiles: Sequence[tuple[str, str]], columns: int) -> str:
    """Lay out small figures in a grid, each with its name under it."""
    items = "".join(f"<li>{body}<p>{escape(name)}</p></li>" for name, body in tiles)
    return f'<ul class="tiles-grid" style="--columns: {columns}">{items}</ul>'
