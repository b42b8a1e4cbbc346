"""Cost of global and of window attention: the formulas of the Swin paper, the counted products, the measured time."""

import time
from typing import Any, NamedTuple

import torch
from torch import nn

from vitrail.grid import Grid
from vitrail.inference.cost import multiply_adds
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.window_attention import WindowAttention


class WindowCost(NamedTuple):
    """Cost of one attention layer on a map of `side * side` cells.

    Args:
        side: rows and columns of the map.
        window: side M of a window; 0 for global attention.
        formula: multiply-adds by the formula of the paper.
        counted: multiply-adds of the module, counted.
        seconds: time of a forward pass here; None if it was not measured.
    """

    side: int
    window: int
    formula: int
    counted: int
    seconds: float | None = None


def msa(h: int, w: int, c: int) -> int:
    """Multiply-adds of global attention, `4 h w C^2 + 2 (h w)^2 C`. Swin Transformer, equation 1.

    Example:
        >>> msa(56, 56, 96)
        2003828736
    """
    return 4 * h * w * c**2 + 2 * (h * w) ** 2 * c


def window_msa(h: int, w: int, c: int, window: int) -> int:
    """Multiply-adds of attention in windows of M cells a side, `4 h w C^2 + 2 M^2 h w C`. Equation 2.

    The products within windows run over the padded map, which is the map if M divides it, as the paper assumes.

    Example:
        >>> window_msa(56, 56, 96, 7)
        145108992
    """
    padded = -(-h // window) * -(-w // window) * window**2
    return 4 * h * w * c**2 + 2 * window**2 * padded * c


def attention_costs(
    dim: int, num_heads: int, sides: tuple[int, ...], windows: tuple[int, ...], most_timed: int = 0
) -> list[WindowCost]:
    """Return the cost of global attention and of each window on maps of several sizes.

    Args:
        dim: channels C.
        num_heads: heads.
        sides: rows and columns of the maps.
        windows: sides M of the windows.
        most_timed: largest map to measure the time on; larger ones, and all for 0, are counted only.
    """
    rows = []
    for side in sides:
        for window in (0, *windows):
            mixer = WindowAttention(dim, num_heads, window) if window else SelfAttention(dim, num_heads)
            formula = window_msa(side, side, dim, window) if window else msa(side, side, dim)
            inputs: list[Any] = [torch.empty(1, side * side, dim, device="meta"), Grid(side, side)]
            counted = sum(multiply_adds(mixer, inputs, "all").values())
            seconds = _seconds(mixer, side, dim) if side <= most_timed else None
            rows.append(WindowCost(side, window, formula, counted, seconds))
    return rows


@torch.no_grad()
def _seconds(mixer: nn.Module, side: int, dim: int, repeats: int = 3) -> float:
    """Return the shortest of some forward passes."""
    x, grid, times = torch.randn(1, side * side, dim), Grid(side, side), []
    mixer.eval()(x, grid)
    for _ in range(repeats):
        start = time.perf_counter()
        mixer(x, grid)
        times.append(time.perf_counter() - start)
    return min(times)
