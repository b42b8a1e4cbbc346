"""Views of a frame: JSON values that the page draws, each from tensors of the model."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vitrail.explain.geometry import cell_size
from vitrail.grid import Grid
from vitrail.trace.arrays import pack

View = dict[str, Any]


def place(grid: Grid, image: tuple[int, int]) -> dict[str, Any]:
    """Return rows, columns and prefix of a grid, and the pixels of a cell; `cell` is None off the image."""
    aspect = (grid.h * image[1]) / max(grid.w * image[0], 1)
    inside = 0.4 < aspect < 2.5
    return {"grid": [grid.h, grid.w, grid.prefix], "cell": list(cell_size(image, grid)) if inside else None}


def cut(grid: Grid, image: tuple[int, int], label: str, field: int = 0, stride: int = 0, padding: int = 0) -> View:
    """The image cut into cells; `field` is the side of a patch that overlaps its neighbours."""
    return {"kind": "cut", "label": label, **place(grid, image), "field": [field, stride, padding]}


def heat(values: Tensor, grid: Grid, image: tuple[int, int], label: str, most: int = 0) -> View:
    """One value for each cell, over the image.

    Args:
        values: `(H, W)`.
        grid: the grid.
        image: rows and columns of the image.
        label: the caption.
        most: if given, only every k-th row and column is kept, so that at most `most` cells remain.
    """
    step = 1
    while most and -(-grid.h // step) * -(-grid.w // step) > most:
        step += 1
    return {"kind": "heat", "label": label, **place(grid, image), "step": step, "values": pack(values[::step, ::step])}


def token_norms(x: Tensor, grid: Grid, image: tuple[int, int], label: str, most: int = 0) -> View:
    """Length of the vector of each cell of `(1, N, C)` tokens."""
    return heat(cell_norms(x, grid), grid, image, label, most)


def cell_norms(x: Tensor, grid: Grid) -> Tensor:
    """Return the Euclidean length of each cell of the first image, `(H, W)`.

    Example:
        >>> cell_norms(torch.tensor([[[3.0, 4.0], [0.0, 1.0]]]), Grid(1, 2)).tolist()
        [[5.0, 1.0]]
    """
    return grid.cells(x[:1])[0].float().norm(dim=-1)


def laid(kind: str, label: str, index: Tensor, grid: Grid, image: tuple[int, int], **more: Any) -> View:
    """A map after padding and roll: `index` is the token in each place, `(H', W')`, -1 for padding.

    Args:
        kind: `cut`, `roll`, `regions` or `reverse`: the step of the partition.
        label: the caption.
        index: the token index of each place.
        grid: the grid before.
        image: rows and columns of the image.
        more: window, shift, and regions, a packed array of the shape of `index`.
    """
    return {"kind": "laid", "step": kind, "label": label, **place(grid, image), "index": pack(index), **more}


def matrix(values: Tensor, label: str, picks: Sequence[tuple[str, Sequence[object]]] = (), **more: Any) -> View:
    """Matrices `(..., n, m)` of which one is shown; each leading axis has a name and the names of its entries."""
    assert values.ndim == 2 + len(picks), (values.shape, picks)
    axes = [[name, [str(each) for each in entries]] for name, entries in picks]
    return {"kind": "matrix", "label": label, "values": pack(values), "picks": axes, **more}


def maps(values: Tensor, label: str, names: Sequence[str] = ()) -> View:
    """Several small maps `(k, H, W)` side by side, each scaled by itself."""
    return {"kind": "maps", "label": label, "values": pack(values), "names": list(names)}


def bias(table: Tensor, index: Tensor, size: tuple[int, int], label: str) -> View:
    """A relative position bias: `(h, 2 H - 1, 2 W - 1)` entries of each head, and the row of each pair `(n, n)`."""
    return {"kind": "bias", "label": label, "table": pack(table), "index": pack(index), "size": list(size)}


def attention(
    rows: Tensor, keys: Tensor, queries: Sequence[int], grid: Grid, image: tuple[int, int], label: str
) -> View:
    """Attention of some queries: `(Q, h, m)` probabilities and the token of each key `(Q, m)`, -1 for padding."""
    return {
        "kind": "attention",
        "label": label,
        **place(grid, image),
        "queries": list(queries),
        "keys": pack(keys),
        "values": pack(rows),
    }


def merge(grid: Grid, image: tuple[int, int], label: str, names: Sequence[str]) -> View:
    """Squares of 2 x 2 cells that become one token; `names` are the four in the order of their channels."""
    return {"kind": "merge", "label": label, **place(grid, image), "names": list(names)}


def squares(spans: Sequence[Sequence[int]], grid: Grid, image: tuple[int, int], label: str) -> View:
    """Rectangles of cells: first row, end row, first column, end column of each."""
    return {"kind": "squares", "label": label, **place(grid, image), "spans": [list(each) for each in spans]}


def bars(labels: Sequence[str], values: Tensor, label: str) -> View:
    """Named values in `0..1`, best first."""
    return {"kind": "bars", "label": label, "labels": list(labels), "values": pack(values)}


def strip(labels: Sequence[str], values: Tensor, label: str) -> View:
    """Tokens in a row, each with a value."""
    return {"kind": "strip", "label": label, "labels": list(labels), "values": pack(values.float())}


def array_bytes(view: object) -> int:
    """Return the characters of all arrays of a JSON value."""
    if isinstance(view, dict):
        return len(view["data"]) if "data" in view else sum(array_bytes(each) for each in view.values())
    return sum(array_bytes(each) for each in view) if isinstance(view, list | tuple) else 0


def top_classes(logits: Tensor, names: Sequence[str], count: int = 5) -> tuple[list[str], Tensor]:
    """Return names and probabilities of the most probable classes of `(K,)` logits.

    Example:
        >>> top_classes(torch.tensor([0.0, 2.0, 1.0]), ["a", "b", "c"], 1)[0]
        ['b']
    """
    probabilities = logits.float().softmax(0)
    best = probabilities.topk(min(count, len(probabilities)))
    found = [str(names[i]) if i < len(names) else f"class {i}" for i in best.indices.tolist()]
    return found, best.values


def spread(count: int, grid: Grid) -> list[int]:
    """Return tokens spread over a grid, the centre first, then the first prefix token, then rows of cells.

    Example:
        >>> spread(3, Grid(4, 4, prefix=1))
        [11, 0, 1]
    """
    order = [grid.prefix + (grid.h // 2) * grid.w + grid.w // 2]
    order += [0] if grid.prefix else []
    for side in (2, 3, 4, 5):
        rows = torch.linspace(0, grid.h - 1, side).round().long().tolist()
        columns = torch.linspace(0, grid.w - 1, side).round().long().tolist()
        order += [grid.prefix + row * grid.w + column for row in rows for column in columns]
    return list(dict.fromkeys(order))[:count]
