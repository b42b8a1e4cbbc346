"""Reliability diagram as SVG text."""

from collections.abc import Sequence

from vitrail.tasks.classes.calibration import Bin
from vitrail.tasks.svg_chart import draw_line, draw_rect, draw_svg, draw_tick


def reliability_chart(bins: Sequence[Bin]) -> str:
    """Draw accuracy against confidence: bars on the diagonal are well calibrated; below, the size of each bin."""
    size, left, top, strip = 250, 52, 12, 46
    total, most = sum(each.count for each in bins), max((each.count for each in bins), default=0)
    floor_y = top + size + 24 + strip

    def x(value: float) -> float:
        return left + value * size

    def y(value: float) -> float:
        return top + (1 - value) * size

    parts = [_HATCH]
    for value in (0, 0.25, 0.5, 0.75, 1):
        parts.append(
            draw_line("grid", x(0), y(value), x(1), y(value)) + draw_tick(left - 8, y(value) + 4, f"{value:.0%}", "end")
        )
    for each in bins:
        if each.accuracy is None or each.confidence is None:
            continue
        at, wide = x(each.low) + 1, (each.high - each.low) * size - 2
        low, high = sorted((each.accuracy, each.confidence))
        counted = strip * each.count / most
        parts.append(
            f"<g{_FEW if each.count < 10 else ''}><title>{_told(each)}</title>"
            + draw_rect("bar", at, y(each.accuracy), wide, each.accuracy * size)
            + draw_rect("gap", at, y(high), wide, (high - low) * size)
            + draw_rect("count", at, floor_y - counted, wide, counted)
            + "</g>"
        )
    parts += [draw_line("ideal", x(0), y(0), x(1), y(1)), draw_line("axis", x(0), y(0), x(1), y(0))]
    parts += [
        draw_line("axis", x(0), floor_y, x(1), floor_y),
        draw_tick(left - 8, floor_y - strip + 8, f"{most:,}", "end"),
    ]
    parts += [draw_tick(x(value), floor_y + 16, f"{value:.0%}") for value in (0, 0.5, 1)]
    middle = y(0.5)
    parts.append(f'<text class="name" x="{x(0.5)}" y="{floor_y + 34}" text-anchor="middle">confidence</text>')
    turned = f'class="name" transform="translate(13 {middle}) rotate(-90)" text-anchor="middle"'
    parts.append(f"<text {turned}>accuracy (share right)</text>")
    shown = "; ".join(f"{b.confidence:.0%} sure, {b.accuracy:.0%} right ({b.count})" for b in bins if b.count)
    return draw_svg(
        left + size + 18, floor_y + 42, f"Reliability of {total} predictions by confidence: {shown}.", "".join(parts)
    )


_HATCH = (
    '<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<line class="hatch" x1="0" y1="0" x2="0" y2="5"/></pattern></defs>'
)

_FEW = ' class="few"'


def _told(each: Bin) -> str:
    span = f"confidence {each.low:.0%} to {each.high:.0%}: {each.count} answer{'s' * (each.count != 1)}"
    return f"{span}, {each.confidence:.1%} sure, {each.accuracy:.1%} right"
