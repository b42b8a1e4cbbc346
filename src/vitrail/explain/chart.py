"""How far each head looks, by depth: the chart of ViT's figure 7, right."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from vitrail.explain.distance import LayerDistance


def distance_chart(distances: Sequence[LayerDistance]) -> Image.Image:
    """Draw one dot a head over the depth of its layer; lines part the stages."""
    figure = Figure(figsize=(6.4, 3.8), dpi=110, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    heads = max(len(one.pixels) for one in distances)
    for depth, (_, pixels) in enumerate(distances):
        nearest_first = pixels.sort().values.tolist()
        colours = [i / max(heads - 1, 1) for i in range(len(nearest_first))]
        at = [depth] * len(nearest_first)
        axes.scatter(at, nearest_first, c=colours, cmap="viridis", vmin=0, vmax=1, s=26, alpha=0.9)
    for depth, (before, after) in enumerate(pairwise(distances)):
        if before.layer.stage != after.layer.stage:
            axes.axvline(depth + 0.5, color="0.8", linewidth=1, zorder=0)
    axes.set(xlabel="layer", ylabel="mean attention distance (pixels)", xlim=(-0.5, len(distances) - 0.5))
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    axes.set_title("How far each head looks", loc="left", fontsize=12, fontweight="bold")
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
