"""Description of embeddings: patches, prefix tokens, learned positions, and the merging of cells between stages."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize

from vitrail.grid import Grid
from vitrail.parts.embeddings import OverlappingPatchEmbedding, PatchEmbedding, PrefixTokens
from vitrail.parts.merging import NoMerging
from vitrail.parts.positions import resize_position
from vitrail.trace import views
from vitrail.trace.frame import TraceFrame
from vitrail.trace.layers import layer_formula
from vitrail.trace.record import Call, grid_of
from vitrail.trace.walk import Walk, cells_text, millions


def patches(walk: Walk, call: Call) -> Iterator[TraceFrame]:
    """Describe the cut of an image, or of a map, into patches that do not overlap."""
    module: Any = call.module
    x, y, grid = call.x, call.y, call.grid
    assert isinstance(module, PatchEmbedding) and x is not None and y is not None and grid is not None
    (channels, height, width), p, c = x.shape[1:], module.patch_size, y.shape[-1]
    n, each = grid.h * grid.w, channels * p * p
    formulas = [
        f"N = {_ceil(height, p)}·{_ceil(width, p)} = {grid.h}·{grid.w} = {n} tokens of {c}",
        f"xᵢ = E·patchᵢ + b, E: {c} × ({channels}·{p}·{p} = {each})",
        f"{n}·{each}·{c} = {millions(n * each * c)} multiply-adds",
    ]
    text = f"Each {p} × {p} patch becomes one vector."
    yield walk.frame(call, "Patch embedding", formulas, text, _cut_and_norms(walk, call, grid, "patches"))


def _ceil(length: int, p: int) -> str:
    return f"({length}/{p})" if length % p == 0 else f"⌈{length}/{p}⌉"


def _cut_and_norms(walk: Walk, call: Call, grid: Grid, label: str, *field: int) -> list[views.View]:
    return [views.cut(grid, walk.image, label, *field), *walk.heat(call, "length of each token")]


def overlapping(walk: Walk, call: Call) -> Iterator[TraceFrame]:
    """Describe patches that share their borders."""
    module: Any = call.module
    grid, (k, _), (s, _), (p, _) = call.grid, module.proj.kernel_size, module.proj.stride, module.proj.padding
    assert isinstance(module, OverlappingPatchEmbedding) and grid is not None and call.x is not None
    (height, width), c = call.x.shape[2:], module.proj.out_channels
    formulas = [
        f"N = ⌊({height} + 2·{p} − {k})/{s} + 1⌋·⌊({width} + 2·{p} − {k})/{s} + 1⌋ = {grid.h}·{grid.w}",
        f"{grid.h * grid.w} tokens of {c}",
        layer_formula(Call("", module.proj, call.args, (_channels_first(call, grid),))),
    ]
    text = f"Patches of {k} × {k} pixels, {s} apart, share their borders."
    yield walk.frame(call, "Overlapping patches", formulas, text, _cut_and_norms(walk, call, grid, "patches", k, s, p))


def _channels_first(call: Call, grid: Grid) -> Any:
    assert call.y is not None
    return grid.cells(call.y).permute(0, 3, 1, 2)


def stem(walk: Walk, call: Call) -> Iterator[TraceFrame]:
    """Describe any other embedding of an image: its layers, and the cells that come out."""
    grid = call.grid
    lines = [line for each in call.walk() if not each.children and (line := layer_formula(each))]
    if grid is None or call.y is None:
        yield from walk.children(call)
        return
    lines.append(f"N = {cells_text(grid)} = {grid.tokens} tokens of {call.y.shape[-1]}")
    text = "Convolutions turn the image into cells; each sees more pixels than its own square."
    yield walk.frame(call, call.name, lines, text, _cut_and_norms(walk, call, grid, "cells"))


def prefix(walk: Walk, call: Call) -> Iterator[TraceFrame]:
    """Describe class, distillation and register tokens."""
    module: Any = call.module
    grid = call.grid
    assert isinstance(module, PrefixTokens) and grid is not None and call.y is not None
    count, c = module.tokens.shape[1:]
    formulas = [
        f"N = {count} + {grid.tokens - count} = {grid.tokens}",
        f"x₀ is learned: {count} × {c} = {count * c:,} weights",
    ]
    norms = call.y[0].norm(dim=-1)
    shown = min(len(norms), grid.prefix + 6)
    labels = [f"prefix {i}" for i in range(grid.prefix)] + [f"cell {i}" for i in range(shown - grid.prefix)]
    text = "Tokens without a place in the image; the head reads the class token."
    yield walk.frame(call, "Class token", formulas, text, [views.strip(labels, norms[:shown], "length of each vector")])


def learned_position(walk: Walk, call: Call) -> Iterator[TraceFrame]:
    """Describe a learned table of positions, resized to the grid."""
    module: Any = call.module
    grid = call.grid
    assert grid is not None
    table = resize_position(module.table, module.grid, grid, module.mode)
    formulas = [f"x = x + P, P: {grid.tokens} × {table.shape[-1]}"]
    if (grid.h, grid.w) != (module.grid.h, module.grid.w):
        formulas.append(f"P was learned on {module.grid.h}·{module.grid.w} and is resized ({module.mode})")
    unit = normalize(table[0].float(), dim=-1)
    queries = [q for q in views.spread(10, grid) if q >= grid.prefix]
    rows = (unit[queries] @ unit.T)[:, None]
    keys = torch.arange(grid.tokens).expand(len(queries), -1)
    view = views.attention(
        rows, keys, queries, grid, walk.image, "cosine of the position of the chosen cell with all others"
    )
    yield walk.frame(call, "Learned positions", formulas, "Each place has a vector that is added to its token.", [view])


def merging(walk: Walk, call: Call) -> Iterator[TraceFrame]:
    """Describe the concatenation of 2 x 2 cells and their projection."""
    before, grid = grid_of(call.args), call.grid
    assert before is not None and grid is not None and call.x is not None and call.y is not None
    c, out, n = call.x.shape[-1], call.y.shape[-1], grid.h * grid.w
    formulas = [
        f"[x(0,0), x(1,0), x(0,1), x(1,1)]: {before.h}·{before.w}·{c} → {grid.h}·{grid.w}·(4·{c} = {4 * c})",
        f"y = W x: {4 * c} → {out}; {n}·{4 * c}·{out} = {millions(n * 4 * c * out)} multiply-adds",
    ]
    found = [views.merge(before, walk.image, "four cells become one", ["(0,0)", "(1,0)", "(0,1)", "(1,1)"])]
    text = "Four neighbours become one token: a quarter of the tokens, twice the channels."
    yield walk.frame(call, "Patch merging", formulas, text, found + walk.heat(call, "length of the merged vectors"))


def coarser(walk: Walk, call: Call) -> Iterator[TraceFrame]:
    """Describe any other entry of a stage by its layers."""
    before, grid = grid_of(call.args), call.grid
    if isinstance(call.module, NoMerging) and type(call.module) is NoMerging:
        return
    if before is None or grid is None or call.x is None or call.y is None:
        yield from walk.children(call)
        return
    lines = [line for each in call.walk() if not each.children and (line := layer_formula(each))]
    lines.append(f"{before.h}·{before.w} cells of {call.x.shape[-1]} → {grid.h}·{grid.w} cells of {call.y.shape[-1]}")
    found = [views.cut(grid, walk.image, "cells after"), *walk.heat(call, "length of each vector")]
    text = (
        "The grid gets coarser." if (grid.h, grid.w) != (before.h, before.w) else "The grid stays, the channels change."
    )
    yield walk.frame(call, call.name, lines, text, found)


def is_silent(module: nn.Module) -> bool:
    """Return whether a module never changes its input in evaluation mode.

    Example:
        >>> is_silent(nn.Dropout(0.5)), is_silent(nn.ReLU())
        (True, False)
    """
    return isinstance(module, nn.Identity | nn.Dropout)
