"""Window attention for a height and width that are not known: no branch on a size, masks by arithmetic.

In eager mode a window attention cuts each map by a table of indices of its size. In an exported program the size is a
symbol, so here the tables are computed in the program, axis by axis, for a map that is always padded and always rolled,
by amounts that are zero where nothing is to be done:

    H  -- pad by -H mod w -->  P, a multiple of w  -- roll by s [H > w] -->  windows of w

Whether an axis is longer than a window is the comparison of a tensor, so it stays in the program. The tables of a map
are shared by the blocks of a stage: a block itself is two gathers, two projections and the attention.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.export.shared_tables import SharedTables, length
from vitrail.grid import Grid
from vitrail.parts.even_blocks import EvenBlocks
from vitrail.parts.positions import NoPosition
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.parts.window_partition import AlwaysShifted, MaskedPadding, PadThenRoll, RollThenPad
from vitrail.shapes import Tokens

Size = int | torch.SymInt


class WindowTables(NamedTuple):
    """Tables of the windows of one map.

    Args:
        windows: number G of windows, maybe symbolic.
        cells: cells n of a window, symbolic if its size follows the map.
        source: token of each place of each window, `(G n,)`; any one if the place is padding.
        real: 1, or 0 for padding, `(G n, 1)`.
        place: place of each token in the windows, `(H W,)`.
        mask: addend of pairs that are not neighbours on the map, `(G, 1, n, n)`; None if all are.
    """

    windows: Size
    cells: Size
    source: Tensor
    real: Tensor
    place: Tensor
    mask: Tensor | None


class SymbolicWindowAttention(nn.Module):
    """The same output as a `WindowAttention` or `CosineWindowAttention`, from operations that keep sizes symbolic.

    With timm's order (`RollThenPad`) a window would shrink on a shorter map: such a map is not computed as timm does.
    `EvenBlocks` has as many windows at every size, and their size is symbolic.

    Args:
        mixer: the attention, whose parameters are used.
        shared: tables that the blocks of a stage share.

    Raises:
        VitrailError: its cut is of an unknown kind, or it rotates queries and keys.

    Example:
        >>> mixer = WindowAttention(8, num_heads=2, window_size=4, shift=2).eval()
        >>> x, grid = torch.randn(1, 9 * 6, 8), Grid(9, 6)
        >>> bool((SymbolicWindowAttention(mixer)(x, grid) - mixer(x, grid)).abs().max() < 1e-5)
        True
    """

    bias: Tensor | None

    def __init__(self, mixer: WindowAttention, shared: SharedTables | None = None):
        super().__init__()
        position: Any = mixer.position
        even = mixer.cut is EvenBlocks and type(position) is NoPosition
        if not even and mixer.cut not in (PadThenRoll, RollThenPad, AlwaysShifted, MaskedPadding):
            raise VitrailError(f"{mixer.cut.__name__} has no form with symbolic sizes")
        if type(position).rotate is not NoPosition.rotate:
            raise VitrailError(f"{type(position).__name__} rotates queries; it has no form with symbolic sizes")
        self.mixer, self.shared = mixer, shared or SharedTables()
        w, weight = mixer.window_size, mixer.proj.weight
        with torch.no_grad():  # a window has one size, so its bias is a constant
            like = weight.new_zeros(1, mixer.num_heads, w * w, weight.shape[0] // mixer.num_heads)
            bias = position.bias(like, Grid(w, w))
        self.register_buffer("bias", None if bias is None else bias.contiguous(), persistent=False)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix the cells of each window; the grid must have no prefix."""
        mixer, batch, tables = self.mixer, x.shape[0], self._tables(x, grid)
        n = tables.cells
        windows = x.index_select(1, tables.source) * tables.real  # (B, G n, C)
        qkv = mixer.qkv(windows).reshape(batch, tables.windows, n, 3, mixer.num_heads, x.shape[2] // mixer.num_heads)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)  # each (B, G, h, n, d)
        norm: Any = getattr(mixer, "qk_norm", None)
        q, k = (q, k) if norm is None else norm(q, k)
        scores = (q * q.shape[-1] ** -0.5) @ k.mT  # ONNX has no fused attention of five dimensions
        addends = [each for each in (tables.mask, self.bias) if each is not None]  # (G, 1, n, n), (h, n, n)
        if addends:
            scores = scores + sum(addends[1:], addends[0])
        mixed = (scores.softmax(-1) @ v).transpose(2, 3).reshape(batch, tables.windows * n, x.shape[2])
        return mixer.proj(mixed.index_select(1, tables.place))

    def _tables(self, x: Tensor, grid: Grid) -> WindowTables:
        """Return the tables of the windows; blocks with and without a shift share the sides of the map."""
        mixer, even, size = self.mixer, self.mixer.cut is EvenBlocks, self.mixer.window_size

        def sides() -> tuple[Side, Side]:
            return Side.of(grid.h, even, size, x.device), Side.of(grid.w, even, size, x.device)

        def tables() -> WindowTables:
            return window_tables(mixer, self.shared.of(grid, (even, size), sides), x)

        return self.shared.of(grid, (mixer.cut, size, mixer.shift), tables)


class Side(NamedTuple):
    """Rows or columns of a map, padded to windows of w cells.

    Sizes that meet tensors are tensors themselves: exporters know a symbolic size as an argument of a shape only.

    Args:
        windows: number of windows, maybe symbolic.
        w: cells of a window, maybe symbolic.
        span: the same for arithmetic with tensors: a number, or a tensor of one integer.
        cell: 0, 1, 2, ... of the cells.
        place: 0, 1, 2, ... of the places.
        count: number of cells, a tensor of one integer.
        end: number of places, a tensor of one integer.
    """

    windows: Size
    w: Size
    span: Any
    cell: Tensor
    place: Tensor
    count: Tensor
    end: Tensor

    @classmethod
    def of(cls, n: Size, even: bool, size: int, device: torch.device) -> "Side":
        """Return a side of n cells, in windows of `size` cells, or in as many even ones."""
        other = (n + size - 1) // size
        cell, place, one = (torch.arange(count, device=device) for count in (n, other * size, other))
        windows, w, span = (size, other, length(one)) if even else (other, size, size)
        return cls(windows, w, span, cell, place, length(cell), length(place))


class Rolled(NamedTuple):
    """A side after padding and rolling, in the order of a cut.

    Args:
        source: cell of each place; any one if the place is padding.
        real: 1, or 0 for a place of padding.
        place: place of each cell.
        region: 0, 1 in the last window, 2 for wrapped cells, by place; None without a shift.
    """

    source: Tensor
    real: Tensor
    place: Tensor
    region: Tensor | None


def roll(side: Side, mixer: WindowAttention) -> Rolled:
    """Roll one side."""
    place, last = side.place, side.count - 1
    if not mixer.shift:
        return Rolled(torch.minimum(place, last), (place < side.count).long(), side.cell, None)
    shift = torch.full_like(side.count, mixer.shift)
    if mixer.cut is not AlwaysShifted:  # a side that one window covers is not shifted
        shift = shift * (side.count > mixer.window_size).long()
    tail = (place >= side.end - mixer.window_size).long() * (shift > 0).long()
    region = tail + (place >= side.end - shift).long()
    if mixer.cut is RollThenPad:
        source = torch.remainder(torch.minimum(place, last) + shift, side.count)
        return Rolled(source, (place < side.count).long(), torch.remainder(side.cell - shift, side.count), region)
    rolled = torch.remainder(place + shift, side.end)
    real = (rolled < side.count).long()
    return Rolled(torch.minimum(rolled, last), real, torch.remainder(side.cell - shift, side.end), region)


def window_tables(mixer: WindowAttention, sides: tuple[Side, Side], like: Tensor) -> WindowTables:
    """Compute the tables of a mixer's windows on a map whose sides may be symbolic.

    Args:
        mixer: window, shift and cut.
        sides: rows and columns of the map.
        like: a tensor of the device and type of the attention's scores.
    """
    down, across = sides
    rows, columns = (roll(side, mixer) for side in sides)
    windows, cells = down.windows * across.windows, down.w * across.w

    def pairs(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Lay values of rows and columns out so that their broadcast is `(H/w, W/w, w, w)`."""
        return y.reshape(down.windows, 1, down.w, 1), x.reshape(1, across.windows, 1, across.w)

    top, left = pairs(rows.source * across.count, columns.source)
    below, right = pairs(rows.real, columns.real)
    real = below * right
    labels = None
    if rows.region is not None and columns.region is not None:
        y, x = pairs(rows.region * 3, columns.region)
        labels = y + x
    if issubclass(mixer.cut, MaskedPadding):
        labels = real - 1 if labels is None else labels * real - (1 - real)
    mask = None
    if labels is not None:
        labels = labels.reshape(windows, cells)
        apart = labels[:, None, :, None] != labels[:, None, None, :]
        mask = like.new_zeros(()).masked_fill(apart, max(mixer.cut.mask_value, -1e9))
    p, q = rows.place, columns.place
    y, x = p % down.span, q % across.span  # in the window
    first = (p - y) * across.end + y * across.span  # rows of W/w windows, each of w w places
    place = (first[:, None] + ((q - x) * down.span + x)).flatten()
    return WindowTables(windows, cells, (top + left).flatten(), real.to(like.dtype).reshape(-1, 1), place, mask)
