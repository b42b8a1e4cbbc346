"""How far each head looks, by depth: the chart of ViT's figure 7, right."""

from collections.abc import Sequence
from html import escape
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from vitrail.explain.distance import BlockDistance, even_distance
from vitrail.explain.figure_grid import FigureGrid, Tile
from vitrail.tasks.svg_chart import draw_line, draw_svg, draw_tick, ticks

HEAD, MEAN, FAINT = "#7a3fa0", "#181a1f", "#686e7a"


def distance_chart(distances: Sequence[BlockDistance], image: tuple[int, int]) -> FigureGrid:
    """Draw one dot a head over the depth of its block, with their mean; lines part the stages.

    Args:
        distances: result of `attention_distance`.
        image: rows and columns of the images in pixels.
    """
    figure = Figure(figsize=(7.4, 3.8), dpi=110, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    even = even_distance(image)
    for depth, (_, pixels) in enumerate(distances):
        label = "one head" if depth == 0 else None
        axes.scatter([depth] * len(pixels), pixels.tolist(), c=HEAD, s=26, alpha=0.6, linewidths=0, label=label)
    means = [float(pixels.mean()) for _, pixels in distances]
    axes.plot(means, color=MEAN, linewidth=1.2, marker="_", markersize=12, label="mean of the heads")
    axes.axhline(even, color=FAINT, linestyle="--", linewidth=1, label=f"spread evenly over the image: {even:.0f}")
    top = max(even, *(float(pixels.max()) for _, pixels in distances))
    axes.set(xlabel="block", ylabel="mean attention distance (pixels)", xlim=(-0.5, len(distances) - 0.5))
    axes.set_ylim(0, 1.3 * top)  # room for the legend
    axes.legend(loc="upper left", ncols=3, frameon=False, fontsize=9)
    _name_blocks(axes, distances)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    canvas.draw()
    plot = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    chart = _distance_svg(distances, even, top)
    return FigureGrid("How far each head looks", [Tile(plot)], 1, _note(image), side=plot.width, chart=chart)


def _distance_svg(distances: Sequence[BlockDistance], even: float, top: float) -> str:
    """Draw the chart in the style classes of a page."""
    wide, high, left, above = 420.0, 190.0, 46.0, 12.0
    limit = 1.1 * top

    def x(depth: float) -> float:
        return left + (depth + 0.5) / len(distances) * wide

    def y(pixels: float) -> float:
        return above + (1 - pixels / limit) * high

    parts = [
        draw_line("grid", left, y(v), left + wide, y(v)) + draw_tick(left - 8, y(v) + 4, f"{v:g}", "end")
        for v in ticks(0, limit)
    ]
    parts.append(draw_line("ideal", left, y(even), left + wide, y(even)))
    for depth, (block, pixels) in enumerate(distances):
        parts += [
            f'<circle class="dot many" cx="{x(depth):.1f}" cy="{y(value):.1f}" r="4">'
            f"<title>{escape(block.title)}, head {head}: {value:.0f} pixels</title></circle>"
            for head, value in enumerate(pixels.tolist())
        ]
    line = " ".join(f"{x(depth):.1f},{y(float(pixels.mean())):.1f}" for depth, (_, pixels) in enumerate(distances))
    parts.append(f'<polyline class="line b" points="{line}"/>')
    step = -(-len(distances) // 16)
    parts += [draw_tick(x(i), above + high + 18, distances[i].block.address) for i in range(0, len(distances), step)]
    parts.append(f'<text class="name" x="{left + wide / 2}" y="{above + high + 38}" text-anchor="middle">block</text>')
    told = "; ".join(f"block {block.address} {float(pixels.mean()):.0f}" for block, pixels in distances)
    title = f"Mean attention distance in pixels by block: {told}. Spread evenly over the image it is {even:.0f}."
    return draw_svg(left + wide + 12, above + high + 46, title, "".join(parts))


def _name_blocks(axes: Axes, distances: Sequence[BlockDistance], most: int = 16) -> None:
    step = -(-len(distances) // most)
    places = range(0, len(distances), step)
    axes.set_xticks(places, [distances[i].block.address for i in places])
    stages = [len(list(stage)) for _, stage in groupby(distances, lambda one: one.block.stage)]
    for end in np.cumsum(stages)[:-1]:
        axes.axvline(end - 0.5, color="0.8", linewidth=1, zorder=0)


def _note(image: tuple[int, int]) -> str:
    return (
        "Dots are heads, the line is their mean, the dashed line attention spread evenly over the image. "
        "How far the cells that a head attends to lie from the cell that asks: the mean, weighted by attention, over "
        f"all cells, in pixels of the {image[1]}x{image[0]} image that the model saw. Low: the head looks at "
        "neighbours; near the dashed line or above: over the whole image. Dots far apart: heads of one block differ. "
        "Windows and neighborhoods let no head look farther than they reach."
    )
