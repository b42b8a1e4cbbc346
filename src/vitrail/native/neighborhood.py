"""Native neighborhood attention: queries are read in place, and packed keys are shared by many queries.

A map is cut into strips, a few columns wide. The neighbours of a query are in k whole rows of its strip, a contiguous
run of keys. So keys and values are packed once per strip, and a query is multiplied with `k * side` keys, of which
`k * k` count.
"""

import ctypes
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitrail.grid import Grid
from vitrail.native.allocator import empty
from vitrail.native.build import library
from vitrail.native.dtypes import PRODUCTS
from vitrail.native.ffi import Operand, at, call, nested, start_of
from vitrail.native.gemm import PackedLinear
from vitrail.native.prototypes import Arguments
from vitrail.shapes import HeadMap, Tokens

FORBIDDEN = -1e30


@dataclass(frozen=True)
class Meeting:
    """Tiling of a map: strips of keys and blocks of queries, in the layout of native/neighborhood.cpp.

    Args:
        starts: int32 `(strips + 1, 2)`, offsets of the keys and the blocks of each strip.
        keys: int32, cell index of each key; -1 is padding.
        blocks: int32 `(blocks, 3)`: first query, number of queries, and offset of their run of keys in the strip.
        seats: int32 `(queries, 2)`: cell index and bias line of each query.
        offsets: `(lines, run)`, row of the bias table for each key of a run; one past the last row is masked.
        longest: number of keys of the longest strip.
        run: number of keys per query, masked ones included.
        side: keys in a row of a strip.
    """

    starts: Tensor
    keys: Tensor
    blocks: Tensor
    seats: Tensor
    offsets: Tensor
    longest: int
    run: int
    side: int

    @cached_property
    def operand(self) -> Operand:
        """Argument struct of the strips."""
        tables = {"starts": self.starts, "keys": self.keys, "blocks": self.blocks, "seats": self.seats}
        return Operand("StripsArgs", **tables, strips=len(self.starts) - 1, longest=self.longest, run=self.run)


@lru_cache(maxsize=64)
def meeting(grid: Grid, kernel_size: int, dilation: int) -> Meeting:
    """Tile a map; it is padded at the right and bottom if it is smaller than a neighborhood.

    Example:
        >>> strips = meeting(Grid(8, 9), kernel_size=7, dilation=1)
        >>> len(strips.seats), strips.run, strips.longest
        (72, 63, 72)
    """
    return _Cut(grid, kernel_size, dilation).meeting()


class _Cut:
    """Builder of strips, blocks and seats, one group at a time."""

    def __init__(self, grid: Grid, kernel_size: int, dilation: int):
        self.grid, self.k, self.dilation = grid, kernel_size, dilation
        self.height, self.width = (max(side, kernel_size * dilation) for side in (grid.h, grid.w))
        self.side = _side(kernel_size, self.width // dilation, library("gemm").vitrail_lanes())
        self.most = library("neighborhood").vitrail_rows()
        self.starts, self.keys, self.blocks, self.seats = [(0, 0)], [], [], []
        self.lines: dict[tuple[int, int, int], int] = {}

    def meeting(self) -> Meeting:
        for row in range(self.dilation):
            for column in range(self.dilation):
                self._group(range(row, self.height, self.dilation), range(column, self.width, self.dilation))
        starts, keys, blocks, seats = (
            torch.tensor(x, dtype=torch.int32, device="cpu") for x in (self.starts, self.keys, self.blocks, self.seats)
        )
        longest = int(starts[:, 0].diff().max())
        return Meeting(starts, keys, blocks, seats, self._offsets(), longest, self.k * self.side, self.side)

    def _group(self, rows: range, columns: range) -> None:
        """Tile one dilation group: the cells that are adjacent after subsampling by the dilation."""
        step, windows = self.side - self.k + 1, len(columns) - self.k + 1
        strips = -(-windows // step)
        for i in range(strips):
            first, last = windows * i // strips, windows * (i + 1) // strips
            self._strip(rows, columns, range(first, last), left=min(first, len(columns) - self.side))

    def _strip(self, rows: range, columns: range, windows: range, left: int) -> None:
        """Add the strip that starts at column `left`, with the queries whose windows start in `windows`."""
        self.keys += [self._cell(y, x) for y in rows for x in columns[left : left + self.side]]
        across = [x for x in range(len(columns)) if self._window(x, len(columns)) in windows]
        for top in range(len(rows) - self.k + 1):
            down = [y for y in range(len(rows)) if self._window(y, len(rows)) == top]
            self._blocks(
                top * self.side,
                [
                    (
                        self._cell(rows[y], columns[x]),
                        self._line(y - top, x - left, self._window(x, len(columns)) - left),
                    )
                    for y in down
                    for x in across
                ],
            )
        self.starts.append((len(self.keys), len(self.blocks)))

    def _blocks(self, key: int, seats: list[tuple[int, int]]) -> None:
        """Add the queries of one run in balanced blocks; padding cells have no query."""
        seats = [seat for seat in seats if seat[0] >= 0]
        count = -(-len(seats) // self.most)
        for i in range(count):
            first, last = len(seats) * i // count, len(seats) * (i + 1) // count
            self.blocks.append((len(self.seats) + first, last - first, key))
        self.seats += seats

    def _cell(self, y: int, x: int) -> int:
        return y * self.grid.w + x if y < self.grid.h and x < self.grid.w else -1

    def _window(self, place: int, length: int) -> int:
        """Return the first neighbour of a position, as in kernels/neighborhood/window.py."""
        return min(max(place - self.k // 2, 0), length - self.k)

    def _line(self, down: int, right: int, window: int) -> int:
        return self.lines.setdefault((down, right, window), len(self.lines))

    def _offsets(self) -> Tensor:
        down, right, window = torch.tensor(list(self.lines), device="cpu").T[..., None]  # each (lines, 1)
        key = torch.arange(self.k * self.side, device="cpu")
        y, x = key // self.side, key % self.side
        table = 2 * self.k - 1
        rows = (down - y + self.k - 1) * table + right - x + self.k - 1
        return torch.where((x >= window) & (x < window + self.k), rows, table * table)


def _side(kernel_size: int, shortest: int, lanes: int) -> int:
    """Return the strip width of minimal cost per query.

    Every vector of keys costs dot products and exponentials; packing a key of the strip, once for all queries of its
    row, costs about a fifth of a vector.
    """

    def cost(side: int) -> float:
        return -(-kernel_size * side // lanes) + 0.2 * side / (side - kernel_size + 1)

    sides = range(kernel_size, min(shortest, 3 * kernel_size) + 1)
    best = min(sides, key=cost)
    windows = shortest - kernel_size + 1
    strips = -(-windows // (best - kernel_size + 1))
    return -(-windows // strips) + kernel_size - 1  # balanced strips


def run_bias(table: Tensor, meeting: Meeting) -> Tensor:
    """Gather a bias table `((2 k - 1)^2, h)` for the runs of a map: `(h, lines, keys padded to whole vectors)`."""
    rows = pad(table.detach().float(), (0, 0, 0, 1), value=FORBIDDEN)
    spare = -meeting.run % library("gemm").vitrail_lanes()
    return pad(rows[meeting.offsets].permute(2, 0, 1), (0, spare), value=FORBIDDEN).contiguous()


def attend_neighbors(
    q: HeadMap, k: HeadMap, v: HeadMap, bias: Tensor, meeting: Meeting, padding: Tensor | None = None
) -> Tensor:
    """Attend to neighbours: `(B, H, W, h, d)`.

    y_i = softmax_j(q_i k_j^T / sqrt(d) + bias) v_j, j the neighbours of i

    Args:
        q: queries; any strides, if rows are consecutive and each head is contiguous.
        k: keys.
        v: values.
        bias: from `run_bias`.
        meeting: tiling of this map.
        padding: `(2, h, d)`, key and value of padding, if the tiling has padding.
    """
    q, k, v = (readable(x) for x in (q, k, v))
    y = empty(*q.shape, dtype=q.dtype)
    given = operands(q, k, v, bias, meeting, padding)
    call("neighborhood", "neighborhood", q.dtype, operands=given, y=at(y), threads=torch.get_num_threads())
    return y


def operands(q: HeadMap, k: HeadMap, v: HeadMap, bias: Tensor, meeting: Meeting, padding: Tensor | None) -> Arguments:
    """Return the argument struct of the operands of `attend_neighbors`; its tensors must outlive the call."""
    batch, height, width, heads, d = q.shape
    strides = [n for x in (q, k, v) for n in (x.stride(0), x.stride(2), x.stride(3))]
    return nested(
        "NeighborhoodArgs",
        q=start_of(q),
        k=start_of(k),
        v=start_of(v),
        strides=(ctypes.c_int64 * 9)(*strides),
        padding=padding,
        batch=batch,
        tokens=height * width,
        heads=heads,
        width=d,
        **_tiling(meeting, bias, d),
    )


def neighborhood_branch(
    x: Tokens,
    heads: int,
    qkv: PackedLinear,
    proj: PackedLinear,
    bias: Tensor,
    meeting: Meeting,
    padding: Tensor,
    norm_eps: float,
) -> Tensor:
    """Return `x + proj(attention(qkv(norm(x))))`, blocked over images: only x and y leave the cache.

    Args:
        x: `(B, N, C)`, in the residual dtype.
        heads: heads h; `C = h d`.
        qkv: packed query, key and value projection.
        proj: packed output projection.
        bias: from `run_bias`.
        meeting: tiling of this map.
        padding: `(2, h, d)`, key and value of padding, in the compute dtype.
        norm_eps: epsilon of the norm.
    """
    x = x.contiguous()
    y = empty(*x.shape, dtype=x.dtype)
    batch, tokens, width = x.shape
    products = PRODUCTS[x.dtype]
    assert products == qkv.dtype == proj.dtype == padding.dtype, (x.dtype, qkv.dtype, padding.dtype)
    assert width == qkv.inputs == proj.outputs and len(meeting.seats) == tokens, (x.shape, qkv.inputs)
    call(
        *("neighborhood", "neighborhood_branch", products),
        x=at(x),
        batch=batch,
        tokens=tokens,
        heads=heads,
        width=width // heads,
        eps=norm_eps,
        qkv=qkv.args,
        proj=proj.args,
        padding=at(padding),
        **_tiling(meeting, bias, width // heads),
        y=at(y),
        threads=torch.get_num_threads(),
    )
    return y


def _tiling(meeting: Meeting, bias: Tensor, d: int) -> dict[str, Any]:
    """Return the native arguments for tiling, scale and bias."""
    return {"scale": d**-0.5, "strips": meeting.operand.args, "bias": at(bias), "lines": bias.shape[1]}


def readable(x: HeadMap) -> Tensor:
    """Return the map itself if its rows are consecutive and each head is contiguous, else a contiguous copy."""
    even = x.stride(4) == 1 and x.stride(1) == x.shape[2] * x.stride(2)
    return x if even else x.contiguous()
