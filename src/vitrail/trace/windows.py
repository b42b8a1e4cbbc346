"""Description of window attention: cut, roll, nine regions, mask, relative position, attention, reverse."""

from collections.abc import Iterator
from math import exp
from typing import Any

import torch
from torch import Tensor

from vitrail.grid import Grid
from vitrail.parts.log_spaced_position import LogSpacedPositionBias
from vitrail.parts.positions import RelativePositionBias, relative_index
from vitrail.parts.window_partition import MaskedPadding, PadThenRoll, region, untile
from vitrail.trace import views
from vitrail.trace.arrays import pack
from vitrail.trace.attention import attended, attention_views, matrices
from vitrail.trace.frame import TraceFrame
from vitrail.trace.record import Call, grid_of
from vitrail.trace.views import View
from vitrail.trace.walk import Walk, millions


def laid_index(cut: PadThenRoll, token_index: Tensor) -> Tensor:
    """Return the token in each place of the padded and rolled map `(H', W')`, from the tokens of each window."""
    return untile(token_index[None, ..., None], cut.window, cut.padded)[0, ..., 0]


def regions(cut: PadThenRoll, index: Tensor) -> Tensor:
    """Return the region 0..8 of each place of the laid map; -1 for padding that is masked."""
    rows, columns = (region(n, w, s, index.device) for n, w, s in zip(cut.padded, cut.window, cut.shift, strict=True))
    labels = rows[:, None] * 3 + columns
    return torch.where(index >= 0, labels, -1) if isinstance(cut, MaskedPadding) else labels


def masks(cut: PadThenRoll, like: Tensor) -> Tensor | None:
    """Return the mask of each kind of window, `(K, n, n)`, or None if no pair is kept apart."""
    addends = cut.bias_plus_mask(None, like)
    return None if addends is None else addends[:, 0]


def window_attention(walk: Walk, call: Call) -> Iterator[TraceFrame]:
    """Describe W-MSA or SW-MSA: all steps in the first block of its kind in a stage, one frame in the others."""
    grid, mixer, x = grid_of(call.args), _module(call), call.x
    assert grid is not None and x is not None
    cut = mixer.cut.of(grid, mixer.window_size, mixer.shift)
    attend = next(each for each in call.children if each.path.endswith("attend"))
    token_index: Tensor = attend.args[4]
    name = "SW-MSA" if any(cut.shift) else "W-MSA"
    if not walk.first(type(mixer), tuple(x.shape), cut):
        yield walk.frame(
            call, f"{call.name}, {name}", cost_formulas(call, cut, grid), f"As in the first {name} of this stage.",
            [*attention_views(walk, call), *_small_bias(walk, call, cut)],
        )  # fmt: skip
        return
    index = laid_index(cut, token_index)
    yield _project(walk, call, grid)
    if any(cut.shift):
        yield from _shifted(walk, call, cut, grid, index, attend.args[3])
    else:
        yield _plain(walk, call, cut, grid, index)
    table = bias_views(call, cut)
    if table:
        yield _bias(walk, call, cut, table)
    text = "Softmax within each window alone: a query never sees beyond it. Choose a query, a head, or a whole window."
    found = [*attention_views(walk, call), _whole(call, cut, attend.args[3])]
    yield walk.frame(call, f"Attention, {name}", cost_formulas(call, cut, grid), text, found, (attend.path,))
    yield _reverse(walk, call, cut, grid, index)


def _module(call: Call) -> Any:
    return call.module


def _project(walk: Walk, call: Call, grid: Grid) -> TraceFrame:
    qkv = call.child("qkv")
    assert qkv is not None and call.x is not None
    n, c = call.x.shape[1:]
    h = _module(call).num_heads
    formulas = [
        f"q, k, v = W x + b: {n} tokens of {c} → 3 × {h} heads × {c // h}",
        f"3·N·C² = 3·{n}·{c}² = {millions(3 * n * c * c)} multiply-adds",
    ]
    frame = walk.frame(qkv, "Queries, keys and values", formulas, paths=(qkv.path,))
    frame.views = walk.heat(Call(qkv.path, qkv.module, (), (call.x, grid)), "length of the normalised tokens")
    return frame


def _laid(step: str, label: str, cut: PadThenRoll, index: Tensor, grid: Grid, walk: Walk, **more: Any) -> View:
    return views.laid(step, label, index, grid, walk.image, window=list(cut.window), shift=list(cut.shift), **more)


def _plain(walk: Walk, call: Call, cut: PadThenRoll, grid: Grid, index: Tensor) -> TraceFrame:
    rows, columns = (p // w for p, w in zip(cut.padded, cut.window, strict=True))
    formulas = [
        *_padding(cut),
        f"({cut.padded[0]}/{cut.window[0]})·({cut.padded[1]}/{cut.window[1]}) = {rows * columns} windows",
        f"each {cut.window[0]}·{cut.window[1]} = {cut.window[0] * cut.window[1]} tokens",
    ]
    text = "The map is cut into windows that do not overlap."
    return walk.frame(call, "Cut into windows", formulas, text, [_laid("cut", "windows", cut, index, grid, walk)], ())


def _padding(cut: PadThenRoll) -> list[str]:
    if cut.padded == cut.size:
        return []
    return [f"pad {cut.size[0]}·{cut.size[1]} to {cut.padded[0]}·{cut.padded[1]}, a multiple of the window"]


def _shifted(
    walk: Walk, call: Call, cut: PadThenRoll, grid: Grid, index: Tensor, mask_index: Tensor
) -> Iterator[TraceFrame]:
    up, left = cut.shift
    text = "Windows of the block before are shifted by half a window, so neighbours that were kept apart meet."
    roll = [*_padding(cut), f"x[r, c] ← x[(r + {up}) mod {cut.padded[0]}, (c + {left}) mod {cut.padded[1]}]"]
    yield walk.frame(call, "Cyclic roll", roll, text, [_laid("roll", "rolled map", cut, index, grid, walk)], ())
    labels = regions(cut, index)
    spans = [
        f"[0, {p - w}), [{p - w}, {p - s}), [{p - s}, {p})"
        for p, w, s in zip(cut.padded, cut.window, cut.shift, strict=True)
    ]
    lines = [
        f"rows {spans[0]}",
        f"columns {spans[1]}",
        f"{len(labels[labels >= 0].unique())} regions: 3·(row part) + (column part)",
    ]
    text = "Cells of one region were neighbours on the map. A window at the edge holds up to four regions."
    view = _laid("regions", "regions of the rolled map", cut, index, grid, walk, regions=pack(labels))
    yield walk.frame(call, "Nine regions", lines, text, [view], ())
    yield _mask(walk, call, cut, labels, mask_index)


def _mask(walk: Walk, call: Call, cut: PadThenRoll, labels: Tensor, mask_index: Tensor) -> TraceFrame:
    addends = masks(cut, call.x if call.x is not None else labels.float())
    assert addends is not None
    kinds, n = len(addends), addends.shape[-1]
    names = [
        f"{int((mask_index == kind).sum())} windows like window {int((mask_index == kind).nonzero()[0])}"
        for kind in range(kinds)
    ]
    formulas = [
        f"mask[i, j] = 0 if region(i) = region(j), else {cut.mask_value:g}; {n}·{n} for each window",
        f"{len(mask_index)} windows share {kinds} masks; exp({cut.mask_value:g}) = {exp(cut.mask_value):.1e}",
    ]
    view = views.matrix(
        addends < 0, "pairs kept apart", [("window", names)], rows="query", columns="key", mask=f"{cut.mask_value:g}"
    )
    return walk.frame(
        call,
        "Attention mask",
        formulas,
        "Pairs of different regions get a score that vanishes in the softmax.",
        [view],
        (),
    )


def bias_views(call: Call, cut: PadThenRoll) -> list[View]:
    """Return the position table of every head and the row of it that each pair of cells reads."""
    position = _module(call).position
    if not isinstance(position, RelativePositionBias | LogSpacedPositionBias):
        return []
    wh, ww = position.size
    table = position.table.detach().T.unflatten(1, (2 * wh - 1, 2 * ww - 1))
    rows, columns = (min(s, w) for s, w in zip(position.size, cut.window, strict=True))
    index = relative_index(wh, ww)[:rows, :columns, :rows, :columns]
    return [views.bias(table, index.flatten(2).flatten(0, 1), (rows, columns), "relative position bias")]


def _small_bias(walk: Walk, call: Call, cut: PadThenRoll) -> list[View]:
    """Return the position table alone, while there is room for it; the page computes the index by its formula."""
    found = [view | {"index": None} for view in bias_views(call, cut)]
    return found if walk.afford(views.array_bytes(found)) else []


def _bias(walk: Walk, call: Call, cut: PadThenRoll, table: list[View]) -> TraceFrame:
    position = _module(call).position
    h, w = position.size
    formulas = [
        f"B[i, j] = table[(yᵢ − yⱼ + {h - 1})·{2 * w - 1} + (xᵢ − xⱼ + {w - 1})]",
        f"(2·{h} − 1)·(2·{w} − 1) = {(2 * h - 1) * (2 * w - 1)} entries for each of {position.table.shape[1]} heads",
    ]
    text = "A learned number for each offset between query and key. Choose a query cell and a key cell."
    return walk.frame(call, "Relative position index", formulas, text, table, (f"{call.path}.position",))


def _whole(call: Call, cut: PadThenRoll, mask_index: Tensor) -> View:
    """Return all probabilities of one window of each kind of mask."""
    [each] = list(attended(call))
    kinds = [int((mask_index == kind).nonzero()[0]) for kind in mask_index.unique().tolist()]
    maps = each.maps.reshape(-1, len(mask_index), *each.maps.shape[-3:])[0]
    return matrices(maps[kinds], "all probabilities of a window", [str(kind) for kind in kinds], "window")


def _reverse(walk: Walk, call: Call, cut: PadThenRoll, grid: Grid, index: Tensor) -> TraceFrame:
    assert call.y is not None
    n, c = call.y.shape[1:]
    formulas = [
        "join the windows" + (f", roll back by ({cut.shift[0]}, {cut.shift[1]})" if any(cut.shift) else ""),
        f"y = W_o x + b: N·C² = {n}·{c}² = {millions(n * c * c)} multiply-adds",
    ]
    found = [_laid("reverse", "back to the map", cut, index, grid, walk)]
    found += walk.heat(Call(call.path, call.module, call.args, (call.y, grid)), "length of the mixed vectors")
    return walk.frame(call, "Reverse and project", formulas, "Every token returns to its place.", found)


def cost_formulas(call: Call, cut: PadThenRoll, grid: Grid) -> list[str]:
    """Return the paper's cost of global and of window attention with these numbers."""
    assert call.x is not None
    c, (h, w), area = call.x.shape[-1], (grid.h, grid.w), cut.window[0] * cut.window[1]
    padded = cut.padded[0] * cut.padded[1]
    msa = 4 * h * w * c * c + 2 * (h * w) ** 2 * c
    wmsa = 4 * h * w * c * c + 2 * area * padded * c
    side = "M²" if padded == h * w else "M² (padded map)"
    return [
        f"Ω(MSA) = 4hwC² + 2(hw)²C = {millions(msa)}",
        f"Ω(W-MSA) = 4hwC² + 2{side}·hw·C = 4·{h * w}·{c}² + 2·{area}·{padded}·{c} = {millions(wmsa)}",
        f"{msa / wmsa:.1f} times less",
    ]
