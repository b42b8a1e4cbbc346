"""Frames of a recorded pass: the tree of calls is walked, and each type of module has a description."""

import re
from collections.abc import Callable, Hashable, Iterator
from math import prod
from typing import Any

from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.attend import Attend
from vitrail.trace.counts import Counts
from vitrail.trace.frame import TraceFrame
from vitrail.trace.record import Call, tensors
from vitrail.trace.views import View, token_norms

Describer = Callable[["Walk", Call], Iterator[TraceFrame]]

ATTENTION_BYTES = 700_000
"""Characters of a page for the attention of selected queries, over all blocks."""
TABLE_BYTES = 330_000
"""Characters of a page for the position tables of blocks after the first of their kind."""
HEAT_BYTES = 500_000
"""Characters of a page for heatmaps of token norms."""
MOST_QUERIES = 17
MOST_FRAMES = 150
"""Leaves beyond which modules of a model without blocks are collected under their parents."""


class Walk:
    """State of a walk.

    Args:
        root: the recorded calls.
        image: rows and columns of the image.
        counts: parameters and multiply-adds to hand out.
        describers: description by type of module.
    """

    def __init__(self, root: Call, image: tuple[int, int], counts: Counts, describers: dict[type, Describer]):
        self.root, self.image, self.counts, self.describers = root, image, counts, describers
        self._seen: set[Any] = set()
        self._room = TABLE_BYTES
        calls = list(root.walk())
        self.queries, self.all_heads = _affordable_queries(calls)
        blocks = sum(
            ".blocks." in call.path and call.path.count(".", call.path.index(".blocks.") + 8) == 0 for call in calls
        )
        self.heat_cells = HEAT_BYTES * 3 // 16 // max(2 * blocks, 16)
        self._collect = sum(not call.children for call in calls) > MOST_FRAMES

    def frames(self, call: Call) -> Iterator[TraceFrame]:
        """Yield the frames of a call and of the calls below it."""
        describe = self._find(call.module)
        if describe:
            yield from describe(self, call)
        elif not call.children or (self._collect and 1 < _leaves(call) <= 12):
            yield from self.leaf(call)
        else:
            yield from self.children(call)

    def children(self, call: Call) -> Iterator[TraceFrame]:
        """Yield the frames of the calls below, and one for weights and products of the module itself."""
        for child in call.children:
            yield from self.frames(child)
        own = [name for name, _ in call.module.named_parameters(recurse=False)]
        if call.path in self.counts.parameters or self.counts.own_macs(call):
            shapes = [f"{name}: {shape(getattr(call.module, name))}" for name in own]
            yield self.frame(call, f"{call.name}: between its parts", shapes, paths=(call.path,))

    def leaf(self, call: Call) -> Iterator[TraceFrame]:
        """Yield one frame for a module without a description; none if it changes nothing."""
        from vitrail.trace.layers import layer_formula

        if same_tensor(call) and call.path not in self.counts.parameters:
            return
        lines = [line for each in call.walk() if not each.children and (line := layer_formula(each))]
        yield self.frame(call, call.name, lines[:14], views=self.heat(call, "length of each cell's vector"))

    def name_tokens(self, call: Call, view: View) -> View:
        """Return a matrix of attention with names for its tokens, if they have any."""
        return view

    def heat(self, call: Call, label: str) -> list[View]:
        """Return the token norms of the result of a call, if it is a map or tokens with a grid."""
        y, grid = call.y, call.grid
        if y is not None and grid is None and y.ndim == 4 and min(y.shape[2:]) > 1:
            grid = Grid(*y.shape[2:])
            y = y.flatten(2).mT
        if y is None or grid is None or y.ndim != 3 or len(y) == 0 or y.shape[1] != grid.tokens or grid.h * grid.w < 2:
            return []
        return [token_norms(y, grid, self.image, label, self.heat_cells)]

    def frame(
        self,
        call: Call,
        title: str,
        formulas: list[str],
        text: str = "",
        views: list[View] | None = None,
        paths: tuple[str, ...] | None = None,
    ) -> TraceFrame:
        """Return a frame of a call that counts what is below `paths`, by default below the call."""
        parameters, macs = (0, 0) if paths == () else self.counts.take(call, *(paths or ()))
        return TraceFrame(
            title=spaced(title),
            group=group_of(call.path),
            path=call.path,
            formulas=formulas,
            text=text,
            shape_in=shape(call.x),
            shape_out=shape(call.y),
            parameters=parameters,
            multiply_adds=macs,
            views=views or [],
        )

    def first(self, *key: Hashable) -> bool:
        """Return whether this is the first time that `key` is seen."""
        new = key not in self._seen
        self._seen.add(key)
        return new

    def afford(self, count: int) -> bool:
        """Return whether so many characters still fit, and take their room if they do."""
        fits = count <= self._room
        self._room -= count if fits else 0
        return fits

    def _find(self, module: nn.Module) -> Describer | None:
        return next((self.describers[kind] for kind in type(module).__mro__ if kind in self.describers), None)


def spaced(title: str) -> str:
    """Return the name of a class as words; other titles are returned unchanged.

    Example:
        >>> spaced("SpatialReductionAttention"), spaced("MLP"), spaced("Conv2d"), spaced("Patch merging")
        ('Spatial reduction attention', 'MLP', 'Conv2d', 'Patch merging')
    """
    words = re.findall(r"ReLU|[A-Z]+(?![a-z])|[A-Z][a-z]+", title)
    if not words or "".join(words) != title:
        return title
    return " ".join(
        [words[0], *(word if word[1:2].isupper() or word == "ReLU" else word.lower() for word in words[1:])]
    )


def shape(x: Tensor | None) -> list[int]:
    """Return the shape of a tensor as a list; empty without one.

    Example:
        >>> import torch
        >>> shape(torch.zeros(2, 3)), shape(None)
        ([2, 3], [])
    """
    return [] if x is None else list(x.shape)


def same_tensor(call: Call) -> bool:
    """Return whether a call returns its own input."""
    given = list(tensors(call.args))
    return all(any(y is x for x in given) for y in tensors(call.output))


def group_of(path: str) -> str:
    """Return the part of the model that a module belongs to, in words.

    Example:
        >>> group_of("backbone.stages.2.blocks.1.token_mixer"), group_of("backbone.embedding.patches"), group_of("head")
        ('stage 2 · block 1', 'embedding', 'head')
    """
    parts = path.split(".")
    names = [parts[0]] if parts[0] in ("encoder", "decoder") else []
    for name in ("stages", "blocks"):
        if name in parts[:-1] and parts[parts.index(name) + 1].isdecimal():
            names.append(f"{name[:-1]} {parts[parts.index(name) + 1]}")
    if len(names) == 1 and names[0].startswith("stage") and parts[-1] in ("entry", "exit"):
        names.append(parts[-1])
    if names:
        return " · ".join(names)
    rest = parts[1:] if parts[0] == "backbone" and len(parts) > 1 else parts
    return rest[0] or "model"


def millions(count: float) -> str:
    """Return a count with three digits: `231.2 M`.

    Example:
        >>> millions(231211008), millions(1536), millions(12)
        ('231.2 M', '1,536', '12')
    """
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if count >= size:
            return f"{count / size:.{1 if count >= 100 * size else 2}f} {letter}"
    return f"{count:,.0f}"


def _leaves(call: Call) -> int:
    return sum(not each.children for each in call.walk())


def _affordable_queries(calls: list[Call]) -> tuple[int, bool]:
    """Return how many queries of each block fit on a page, and whether each head of them does."""
    every, mean = 0, 0
    for call in calls:
        if isinstance(call.module, Attend):
            given = list(tensors(call.args))
            heads, keys = _heads_and_keys(call, given)
            every += heads * keys * 16 // 3
            mean += keys * 16 // 3
    if 2 * every <= ATTENTION_BYTES:
        return min(MOST_QUERIES, ATTENTION_BYTES // max(every, 1)), True
    return max(1, min(MOST_QUERIES, ATTENTION_BYTES // max(mean, 1))), False


def _heads_and_keys(call: Call, given: list[Tensor]) -> tuple[int, int]:
    from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttend
    from vitrail.parts.token_mixers.window_attention import WindowAttend

    module = call.module
    if isinstance(module, WindowAttend):
        return module.num_heads, given[-1].shape[-1]
    if isinstance(module, NeighborhoodAttend):
        return given[0].shape[-2], module.kernel_size**2
    k = given[1]
    return (k.shape[-3], k.shape[-2]) if k.ndim >= 4 else (1, k.shape[-2])


def cells_text(grid: Grid) -> str:
    """Return rows times columns of a grid.

    Example:
        >>> cells_text(Grid(2, 3))
        '2·3'
    """
    return f"{grid.h}·{grid.w}" + (f" + {grid.prefix}" if grid.prefix else "")


def volume(values: list[int]) -> int:
    """Return the product of a shape.

    Example:
        >>> volume([2, 3, 4])
        24
    """
    return prod(values)
