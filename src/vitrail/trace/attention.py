"""Description of attention: operands of each leaf, probabilities of selected queries, heads mixed after the softmax."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitrail.grid import Grid
from vitrail.parts.attend import Attend
from vitrail.parts.head_mixing import HeadLinear, HeadMixingAttend
from vitrail.trace import views
from vitrail.trace.arrays import packed_bytes
from vitrail.trace.frame import TraceFrame
from vitrail.trace.record import Call, grid_of
from vitrail.trace.views import View
from vitrail.trace.walk import Walk, millions

MATRIX_BYTES = 90_000
"""Characters of a page for whole matrices of one block."""


class Attended(NamedTuple):
    """Attention of one leaf call.

    Args:
        call: the call of the leaf.
        maps: probabilities `(*groups, h, n, M)`.
        value: values of the keys.
    """

    call: Call
    maps: Tensor
    value: Tensor


def attended(call: Call) -> Iterator[Attended]:
    """Yield the attention of every leaf below a call, computed from its operands by the readable reference."""
    for each in call.walk():
        leaf: Any = each.module
        if isinstance(leaf, Attend):
            q, k, v, bias = leaf.operands(*each.args)
            yield Attended(each, leaf.maps(q.float(), k.float(), None if bias is None else bias.float()), v)


class Rows(NamedTuple):
    """Probabilities of selected queries.

    Args:
        values: `(Q, h, m)`.
        keys: token of each key, -1 for padding; or its number if a key is a square of cells, `(Q, m)`.
        queries: tokens of the queries.
        spans: first row, end row, first column and end column of the square of each key; empty if keys are tokens.
    """

    values: Tensor
    keys: Tensor
    queries: list[int]
    spans: list[list[int]]


def rows_of(mixer: Call, maps: Tensor, count: int) -> Rows | None:
    """Return rows of the maps of a mixer, or None if the mixer does not know which tokens they are about."""
    module: Any = mixer.module
    grid = grid_of(mixer.args)
    if grid is None or not hasattr(module, "token_index"):
        return None
    slots = module.token_index(grid)
    keys = module.keys(grid) if hasattr(module, "keys") else slots
    spans = reduced_spans(module, grid)
    if spans:
        keys = torch.arange(len(spans)).expand(len(slots), -1)
    if maps.shape[:-3].numel() != len(slots) or maps.shape[-2:] != (slots.shape[1], keys.shape[1]):
        return None
    grouped = maps.reshape(len(slots), *maps.shape[-3:])
    inside = set(slots.flatten().tolist())
    queries = [token for token in views.spread(1000, grid) if token in inside][:count]
    found = [(slots == token).nonzero()[0].tolist() for token in queries]
    values = torch.stack([grouped[group, :, position] for group, position in found])
    return Rows(values, torch.stack([keys[group] for group, _ in found]), queries, spans)


def reduced_spans(module: Any, grid: Grid) -> list[list[int]]:
    """Return the square of cells of each key of a reduced map; empty if every token is a key."""
    coverage = module.coverage(grid) if hasattr(module, "coverage") else None
    if coverage is None or coverage.shape[0] == coverage.shape[1]:
        return []
    spans = []
    for row in coverage.unflatten(1, (grid.h, grid.w)) > 0:
        ys, xs = row.any(1).nonzero().flatten(), row.any(0).nonzero().flatten()
        spans.append([int(ys[0]), int(ys[-1]) + 1, int(xs[0]), int(xs[-1]) + 1])
    return spans


def attention_views(walk: Walk, mixer: Call, label: str = "") -> list[View]:
    """Return views of all attention of a mixer: over the image if its tokens have cells, else as matrices."""
    found: list[View] = []
    for each in attended(mixer):
        name = label or "attention of the chosen query"
        grid = grid_of(mixer.args)
        picked = rows_of(mixer, each.maps, walk.queries)
        if picked is not None and grid is not None:
            rows = picked.values if walk.all_heads else picked.values.mean(1, keepdim=True)
            suffix = "" if walk.all_heads or each.maps.shape[-3] == 1 else f", mean of {each.maps.shape[-3]} heads"
            view = views.attention(rows, picked.keys, picked.queries, grid, walk.image, name + suffix)
            found.append(view | ({"spans": picked.spans} if picked.spans else {}))
            found += _mixed_heads(walk, mixer, each, grid)
        else:
            found.append(walk.name_tokens(mixer, matrices(each.maps, name)))
    return found


def matrices(maps: Tensor, label: str, names: list[str] | None = None, groups: str = "group") -> View:
    """Return whole matrices `(*groups, h, n, M)`: as many groups, heads and rows as fit on a page."""
    maps = maps.reshape(-1, *maps.shape[-3:])  # (G, h, n, M)
    afford = max(1, MATRIX_BYTES // packed_bytes(maps.shape[-1]))  # rows in all
    n = min(maps.shape[2], max(1, afford))
    heads = min(maps.shape[1], max(1, afford // n))
    count = min(len(maps), max(1, afford // (n * heads)), len(names or maps))
    step = max(1, len(maps) // count)
    chosen = list(range(len(maps)))[::step][:count]
    names = names or [str(i) for i in chosen]
    part = maps[chosen, :heads, :n]
    if part.shape[2] < maps.shape[2]:
        label += f", first {n} of {maps.shape[2]} queries"
    picks = [(groups, names[: len(chosen)]), ("head", range(heads))]
    return views.matrix(part, label, picks, rows="query", columns="key")


def _mixed_heads(walk: Walk, mixer: Call, each: Attended, grid: Grid) -> list[View]:
    """Return the probabilities before heads are mixed, and the mixing matrices."""
    leaf = each.call.module
    if not isinstance(leaf, HeadMixingAttend):
        return []
    q, k, _, bias = leaf.operands(*each.call.args)
    before = rows_of(mixer, leaf.softmax(q, k, bias), walk.queries)
    found = []
    if before is not None and walk.all_heads:
        found.append(views.attention(*before[:3], grid, walk.image, "the same before the heads are mixed"))
    for name, module in (("before", leaf.before), ("after", leaf.after)):
        linear = next((m for m in module.modules() if isinstance(m, HeadLinear)), None)
        if linear is not None:
            label = f"weights that mix the heads {name} the softmax"
            found.append(views.matrix(linear.weight, label, rows="head out", columns="head in"))
    return found


def self_attention(walk: Walk, call: Call) -> Iterator[TraceFrame]:
    """Describe attention of all tokens to all tokens, or to a reduced map."""
    x, grid = call.x, grid_of(call.args)
    formulas = attention_formulas(call)
    text = "Each token asks with a query and takes the mean of the values, weighted by the softmax over the keys."
    if any(isinstance(each.module, HeadMixingAttend) for each in call.walk()):
        text = "Heads exchange their maps: a learned h × h matrix mixes them, so rows no longer sum to one."
    assert x is not None
    found = attention_views(walk, call) + _reduction(walk, call, grid)
    yield walk.frame(call, call.name, formulas, text, found or walk.heat(call, "length of the mixed vectors"))


def attention_formulas(call: Call) -> list[str]:
    """Return the formulas of a mixer with the numbers of its operands."""
    x, lines = call.x, []
    assert x is not None
    n, c = x.shape[-2:] if x.ndim == 3 else (0, x.shape[-1])
    for each in attended(call):
        *_, h, queries, keys = each.maps.shape
        d = each.value.shape[-1]
        groups = each.maps.shape[:-3].numel() // len(x)
        times = f"{groups} × " if groups > 1 else ""
        lines.append(f"A = softmax(q·kᵀ/√d + bias), d = {d}: {times}{h} heads × {queries} queries × {keys} keys")
        products = groups * h * queries * keys * d
        factors = "·".join(str(n) for n in (2, *([groups] if groups > 1 else []), queries, keys, h * d))
        lines.append(f"q·kᵀ and A·v: {factors} = {millions(2 * products)} multiply-adds")
    if lines and n:
        lines.append(f"projections of {n} tokens of {c}: each W is {c} × {c}, {millions(n * c * c)} multiply-adds")
    return lines


def _reduction(walk: Walk, call: Call, grid: Grid | None) -> list[View]:
    """Return the squares of cells that make one key each, of a spatial reduction."""
    spans = [] if grid is None else reduced_spans(call.module, grid)
    if grid is None or not spans:
        return []
    return [views.squares(spans, grid, walk.image, f"{grid.h * grid.w} cells become {len(spans)} keys")]
