"""Small charts as SVG text: colours come from the page's style sheet, so they follow its light and dark mode."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, isfinite, log10

WIDTH, HEIGHT = 340, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 30, 42


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Args:
        name: name in the legend.
        x: x coordinates.
        y: y coordinates; non-finite ones are left out.
        style: class of the style sheet: `a`, `b`, or `faint`.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str = "a"

    def points(self) -> list[tuple[float, float]]:
        """Return the points that can be drawn."""
        return [(x, y) for x, y in zip(self.x, self.y, strict=True) if isfinite(x) and isfinite(y)]


def thin(series: Series, most: int = 300) -> Series:
    """Return a series of at most `most` points: means over equal windows.

    Example:
        >>> thin(Series("loss", [0, 1, 2, 3], [4.0, 2.0, 1.0, 3.0]), most=2).y
        [3.0, 2.0]
    """
    points = series.points()
    step = ceil(len(points) / most) or 1
    groups = [points[i : i + step] for i in range(0, len(points), step)]
    means = [[sum(values) / len(group) for values in zip(*group, strict=True)] for group in groups]
    return Series(series.name, [mean[0] for mean in means], [mean[1] for mean in means], series.style)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers from `low` to `high`, about `count` of them.

    Example:
        >>> ticks(0, 1), ticks(-3, 90)
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 20.0, 40.0, 60.0, 80.0])
    """
    span = high - low
    if span <= 0:
        return [low]
    power = 10.0 ** floor(log10(span / count))
    step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= span / count * 0.999)
    return [round(i * step, 12) + 0.0 for i in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def whole_ticks(low: float, high: float) -> list[float]:
    """Return round whole numbers from `low` to `high`, and `high` if it is whole: where the lines end.

    Example:
        >>> whole_ticks(1, 7), whole_ticks(1, 11), whole_ticks(0.02, 6)
        ([2.0, 4.0, 7.0], [2.0, 4.0, 6.0, 8.0, 11.0], [2.0, 4.0, 6.0])
    """
    found = [value for value in ticks(low, high) if value == int(value)]
    if high != int(high) or high in found:
        return found
    step = found[1] - found[0] if len(found) > 1 else 0.0
    return [value for value in found if high - value > 0.6 * step] + [float(high)]


def line_chart(series: Sequence[Series], x_name: str, y_name: str, percent: bool = False, zero: bool = False) -> str:
    """Draw lines over a common pair of axes.

    Args:
        series: the lines; the last one is drawn on top.
        x_name: label of the horizontal axis.
        y_name: label of the vertical axis, also the description for screen readers.
        percent: write the vertical axis in per cent.
        zero: let the vertical axis begin at zero, unless the values would crowd in its upper half.
    """
    drawn = [(each, each.points()) for each in series if each.points()]
    if not drawn:
        return ""
    xs, ys = zip(*(point for _, points in drawn for point in points), strict=True)
    zero = zero and min(ys) < max(ys) / 2
    low_y, high_y = (0.0 if zero else min(ys)), max(ys)
    pad = (high_y - low_y) * 0.06 or abs(high_y) * 0.1 or 1.0
    y_range = (low_y if zero else low_y - pad, min(high_y + pad, 1.02) if percent else high_y + pad)
    x_range = (min(xs), max(xs)) if max(xs) > min(xs) else (min(xs) - 0.5, max(xs) + 0.5)
    frame = _Frame(x_range, y_range)
    last = "; ".join(f"{each.name} ends at {_number(points[-1][1], percent)}" for each, points in drawn)
    parts = [frame.axes(x_name, percent), _legend([each for each, _ in drawn]) if len(drawn) > 1 else ""]
    for each, points in drawn:
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="line {each.style}" points="{path}"/>')
        if len(points) <= 40 and each.style != "faint":
            parts += [
                f'<circle class="dot {each.style}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3">'
                f"<title>{escape(x_name)} {x:g}: {_number(y, percent)}</title></circle>"
                for x, y in points
            ]
    return draw_svg(WIDTH, HEIGHT, f"{y_name} by {x_name}: {last}.", "".join(parts))


class _Frame:
    """Axes of a chart: map values to coordinates."""

    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float]):
        self.x_range, self.y_range = x_range, y_range

    def x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    def axes(self, x_name: str, percent: bool) -> str:
        right, floor_y = WIDTH - _RIGHT, HEIGHT - _BOTTOM
        lines = [
            draw_line("grid", _LEFT, self.y(v), right, self.y(v))
            + draw_tick(_LEFT - 8, self.y(v) + 4, _number(v, percent), "end")
            for v in ticks(*self.y_range)
        ]
        lines += [draw_tick(self.x(v), floor_y + 18, _number(v)) for v in whole_ticks(*self.x_range)]
        middle = (_LEFT + right) / 2
        name = f'<text class="name" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_name)}</text>'
        return "".join([*lines, draw_line("axis", _LEFT, floor_y, right, floor_y), name])


def draw_rect(style: str, x: float, y: float, width: float, height: float) -> str:
    """Return a rectangle of a style class.

    Example:
        >>> draw_rect("bar", 0, 1, 2, 3)
        '<rect class="bar" x="0.0" y="1.0" width="2.0" height="3.0"/>'
    """
    return f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def draw_line(style: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """Return a straight line of a style class.

    Example:
        >>> draw_line("axis", 0, 0, 1, 0)
        '<line class="axis" x1="0.0" y1="0.0" x2="1.0" y2="0.0"/>'
    """
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def draw_tick(x: float, y: float, text: str, anchor: str = "middle") -> str:
    """Return the label of a tick.

    Example:
        >>> draw_tick(1, 2, "50%")
        '<text class="tick" x="1.0" y="2.0" text-anchor="middle">50%</text>'
    """
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _legend(series: Sequence[Series]) -> str:
    parts, at = [], float(_LEFT)
    for each in series:
        parts.append(
            f'<line class="line {each.style}" x1="{at:.0f}" x2="{at + 18:.0f}" y1="12" y2="12"/>'
            f'<text class="name" x="{at + 24:.0f}" y="16">{escape(each.name)}</text>'
        )
        at += 40 + 6.8 * len(each.name)
    return "".join(parts)


def _number(value: float, percent: bool = False) -> str:
    """Format a number as short as possible.

    Example:
        >>> _number(0.0005), _number(0.25), _number(12000), _number(0.975, percent=True)
        ('5e-4', '0.25', '12,000', '97.5%')
    """
    if percent:
        return f"{100 * value:.4g}%"
    if value and abs(value) < 0.01:
        digits, _, power = f"{value:.2e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def draw_svg(width: float, height: float, told: str, body: str) -> str:
    """Return a chart with a description for screen readers.

    Example:
        >>> draw_svg(2, 1, "loss by epoch", "")
        '<svg class="chart" viewBox="0 0 2 1" role="img" aria-label="loss by epoch"></svg>'
    """
    told = escape(told, quote=True)
    return f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{told}">{body}</svg>'
