"""How far information travels through windows: gradients of one cell, with and without the shift; the nine regions."""

import torch
from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.parts.window_partition import region
from vitrail.study.charts import gallery, matrix, regions
from vitrail.study.plan import StudyFigure
from vitrail.study.small_models import pre_norm_block

SIDE, WINDOW, DEPTH, CELL = 16, 4, 4, (5, 6)


def mixer(dim: int, heads: int, window: int, shift: int) -> nn.Module:
    """Build global attention (window 0) or window attention."""
    return WindowAttention(dim, heads, window, shift) if window else SelfAttention(dim, heads)


def reach(shifted: bool) -> list[Tensor]:
    """Return how strongly each cell moves one cell after 1, 2, ... blocks: norms of gradients, `(side, side)` each."""
    side, window = SIDE, WINDOW
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        blocks = [pre_norm_block(24, mixer(24, 2, window, window // 2 * (i % 2) * shifted)) for i in range(DEPTH)]
        first = torch.randn(1, side * side, 24, requires_grad=True)
        x, maps = first, []
        for block in blocks:
            x = block(x, Grid(side, side))
            (gradient,) = torch.autograd.grad(x[0, CELL[0] * side + CELL[1]].sum(), first, retain_graph=True)
            maps.append(gradient[0].norm(dim=-1).unflatten(0, (side, side)))
    return maps


def reached(map: Tensor) -> int:
    """Count the cells of a map of `reach` that matter: a mask of -100 leaves 1e-44, which does not."""
    return int((map > 1e-6 * map.max()).sum())


def reach_figure(shifted: list[Tensor], straight: list[Tensor]) -> StudyFigure:
    """Draw the reach after each block, with the shift above and without it below."""
    tiles = []
    for name, maps in (("shifted", shifted), ("not shifted", straight)):
        for i, map in enumerate(maps):
            strength = (map / map.max()).clamp_min(1e-6).log10() / 6 + 1
            told = f"{name}, after {i + 1} block{'s' * (i > 0)}: {reached(map)} cells"
            tiles.append((told, matrix(strength.tolist(), told, 0.0, 1.0)))
    note = (
        f"Gradient of one cell with respect to every cell of a {SIDE} x {SIDE} map, windows of {WINDOW}, "
        "logarithmic. Without the shift a cell never leaves its window."
    )
    return StudyFigure("How far information travels", gallery(tiles, DEPTH), note, wide=True)


def mask_figure() -> StudyFigure:
    """Draw the regions that the mask of shifted windows keeps apart."""
    rows = region(12, WINDOW, WINDOW // 2, torch.device("cpu"))
    labels = rows[:, None] * 3 + rows
    note = (
        "A 12 x 12 map after the cyclic shift by half a window of 4. Tokens of different regions may share a "
        "window, but were not neighbours: the mask keeps them apart."
    )
    return StudyFigure("The nine regions of the mask", regions(labels.tolist(), "nine regions of a shifted map"), note)
