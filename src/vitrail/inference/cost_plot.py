"""Cost as a figure: bars by module, and global against window attention over the size of the image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from vitrail.atomic_io import make_folder
from vitrail.inference.cost import ModuleCost
from vitrail.inference.window_cost import WindowCost, attention_costs, msa

_COLOURS = ("#2459a9", "#d99a1e", "#b3344a", "#2d8a66")
_SIDES = (14, 28, 56, 84, 112)


def first_attention(model: nn.Module) -> tuple[int, int, int, int]:
    """Return channels, heads, window (0 without one) and pixels of a cell of the first attention of a model.

    Without attention they are those of Swin-T's first stage.

    Example:
        >>> first_attention(nn.Linear(1, 1))
        (96, 3, 7, 4)
    """
    for module in model.modules():
        heads, qkv = getattr(module, "num_heads", None), getattr(module, "qkv", None)
        if heads and isinstance(qkv, nn.Linear):
            config: Any = getattr(model, "config", None)
            return qkv.in_features, heads, int(getattr(module, "window_size", 0)), int(getattr(config, "patch_size", 4))
    return 96, 3, 7, 4


def plot_cost(model: nn.Module, rows: Sequence[ModuleCost], path: Path, title: str, timed: bool = True) -> None:
    """Draw multiply-adds, parameters and activations by module, and attention over the size of the map.

    Args:
        model: the model.
        rows: its cost by module, the total last.
        path: image file to write; its ending gives the format.
        title: above the figure.
        timed: whether the time of small maps is measured and drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    dim, heads, window, patch = first_attention(model)
    windows = tuple(sorted({7, 12, window or 7}))
    costs = attention_costs(dim, heads, _SIDES, windows, most_timed=56 if timed else 0)
    figure = Figure(figsize=(13, max(5.0, 1.6 + 0.2 * len(rows))), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _bars(left, rows[:-1])
    _curves(right, costs, dim, windows, patch)
    figure.suptitle(title)
    make_folder(path.parent)
    figure.savefig(path, dpi=110)


def _bars(axes: Any, rows: Sequence[ModuleCost]) -> None:
    names = [row.name.removeprefix("backbone.") for row in rows]
    kinds = (
        ("multiply-adds", [row.multiply_adds for row in rows]),
        ("parameters", [row.parameters for row in rows]),
        ("activations", [row.activation_bytes for row in rows]),
    )
    for number, (label, values) in enumerate(kinds):
        whole = sum(values) or 1
        places = [i + 0.27 * (number - 1) for i in range(len(rows))]
        axes.barh(places, [100 * value / whole for value in values], 0.25, color=_COLOURS[number], label=label)
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("share of the model in %")
    axes.legend(fontsize=8)


def _curves(axes: Any, costs: Sequence[WindowCost], dim: int, windows: Sequence[int], patch: int) -> None:
    sides = list(range(_SIDES[0], _SIDES[-1] + 1, 2))
    pixels = [patch * side for side in sides]
    axes.plot(pixels, [msa(n, n, dim) / 1e9 for n in sides], color=_COLOURS[0], label="MSA: 4hwC² + 2(hw)²C")
    for colour, window in zip(_COLOURS[1:], windows, strict=False):
        smooth = [(4 * n * n * dim**2 + 2 * window**2 * n * n * dim) / 1e9 for n in sides]
        axes.plot(pixels, smooth, color=colour, label=f"W-MSA, M = {window}: 4hwC² + 2M²hwC")
    for colour, window in zip(_COLOURS, (0, *windows), strict=False):
        found = [each for each in costs if each.window == window]
        x = [patch * each.side for each in found]
        axes.plot(x, [each.counted / 1e9 for each in found], "o", color=colour, markersize=5)
    axes.plot([], [], "o", color="gray", label="counted in the module, maps padded to whole windows")
    axes.set(xscale="log", yscale="log", xlabel="side of the image in pixels", ylabel=f"GMACs of one layer, C = {dim}")
    axes.set_xticks([patch * side for side in _SIDES], [str(patch * side) for side in _SIDES])
    axes.minorticks_off()
    if any(each.seconds for each in costs):
        _times(axes.twinx(), costs, windows, patch)
        axes.plot([], [], "x--", color="gray", label="milliseconds here (right)")
    axes.legend(fontsize=8)


def _times(axes: Any, costs: Sequence[WindowCost], windows: Sequence[int], patch: int) -> None:
    for colour, window in zip(_COLOURS, (0, *windows), strict=False):
        found = [each for each in costs if each.window == window and each.seconds]
        x = [patch * each.side for each in found]
        axes.plot(x, [1e3 * (each.seconds or 0) for each in found], "x--", color=colour, markersize=5, linewidth=0.8)
    axes.set(yscale="log", ylabel="milliseconds")


def largest_departure(costs: Sequence[WindowCost]) -> float:
    """Return the largest relative difference of formula and counted products."""
    return max(abs(each.counted / each.formula - 1) for each in costs)
