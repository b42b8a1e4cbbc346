"""Window attention for a height and width that are not known: no branch on a size, masks by arithmetic.

In eager mode a window attention cuts each map by a table of indices of its size. In an exported program the size is a
symbol, so here the map is always padded and always rolled, by amounts that are zero where nothing is to be done:

    H, W  -- pad by -H mod w, -W mod w -->  multiples of w  -- roll by s [H > w], s [W > w] -->  tiles of w x w

Whether an axis is longer than a window is the comparison of a tensor, so it stays in the program.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.parts.window_partition import AlwaysShifted, MaskedPadding, PadThenRoll, RollThenPad
from vitrail.shapes import Tokens


class SymbolicWindowAttention(nn.Module):
    """The same output as a `WindowAttention` or `CosineWindowAttention`, from operations that keep sizes symbolic.

    With timm's order (`RollThenPad`) a window would shrink on a shorter map: such a map is not computed as timm does,
    so `least` is one window then.

    Args:
        mixer: the attention, whose parameters are used.

    Raises:
        VitrailError: its cut is of an unknown kind.

    Example:
        >>> mixer = WindowAttention(8, num_heads=2, window_size=4, shift=2).eval()
        >>> x, grid = torch.randn(1, 9 * 6, 8), Grid(9, 6)
        >>> bool((SymbolicWindowAttention(mixer)(x, grid) - mixer(x, grid)).abs().max() < 1e-5)
        True
    """

    def __init__(self, mixer: WindowAttention):
        super().__init__()
        if mixer.cut not in (PadThenRoll, RollThenPad, AlwaysShifted, MaskedPadding):
            raise VitrailError(f"{mixer.cut.__name__} has no form with symbolic sizes")
        self.mixer = mixer
        self.least = mixer.window_size if mixer.cut is RollThenPad else 1

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix the cells of each window; the grid must have no prefix."""
        mixer, w = self.mixer, self.mixer.window_size
        rows, columns = (self._axis(n, x.device) for n in (grid.h, grid.w))
        cells = self._lay(grid.cells(x), rows, columns)
        batch, dim, down, across = x.shape[0], x.shape[2], rows.windows, columns.windows
        tiles = cells.reshape(batch, down, w, across, w, dim).transpose(2, 3)  # (B, H/w, W/w, w, w, C)
        windows = tiles.reshape(batch, down * across, w * w, dim)
        mixed = self._attend(windows, self._mask(rows, columns))
        tiles = mixed.reshape(batch, down, across, w, w, dim).transpose(2, 3)  # -> (B, H/w, w, W/w, w, C)
        laid = tiles.reshape(batch, down * w, across * w, dim)
        return mixer.proj(self._restore(laid, rows, columns).reshape(batch, grid.h * grid.w, dim))

    def _axis(self, n: Any, device: torch.device) -> "_Axis":
        mixer, w = self.mixer, self.mixer.window_size
        windows = (n + w - 1) // w
        longer = (
            torch.arange(n, device=device).amax(0, keepdim=True) >= w
        ).long()  # 1 if the axis is longer than a window
        shift = longer * mixer.shift if mixer.cut is not AlwaysShifted else torch.full_like(longer, mixer.shift)
        return _Axis(n, windows, w, shift)

    def _lay(self, cells: Tensor, rows: "_Axis", columns: "_Axis") -> Tensor:
        """Pad and roll, in the order of the cut."""
        if self.mixer.cut is RollThenPad:
            cells = _roll(cells, rows.n, columns.n, rows.shift, columns.shift)
            return pad(cells, (0, 0, 0, columns.padded - columns.n, 0, rows.padded - rows.n))
        cells = pad(cells, (0, 0, 0, columns.padded - columns.n, 0, rows.padded - rows.n))
        return _roll(cells, rows.padded, columns.padded, rows.shift, columns.shift)

    def _restore(self, laid: Tensor, rows: "_Axis", columns: "_Axis") -> Tensor:
        """Undo `_lay`."""
        if self.mixer.cut is RollThenPad:
            cropped = laid[:, : rows.n, : columns.n]
            return _roll(cropped, rows.n, columns.n, -rows.shift, -columns.shift)
        rolled = _roll(laid, rows.padded, columns.padded, -rows.shift, -columns.shift)
        return rolled[:, : rows.n, : columns.n]

    def _attend(self, windows: Tensor, mask: Tensor) -> Tensor:
        mixer, w = self.mixer, self.mixer.window_size
        qkv = mixer.qkv(windows).unflatten(3, (3, mixer.num_heads, -1))  # (B, windows, n, 3, h, d)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)
        norm: Any = getattr(mixer, "qk_norm", None)
        q, k = (q, k) if norm is None else norm(q, k)
        bias = mixer.position.bias(q, Grid(w, w))
        addend = mask if bias is None else mask + bias  # (windows, 1, n, n) + (h, n, n)
        scores = (q * q.shape[-1] ** -0.5) @ k.mT + addend.to(q.dtype)  # ONNX has no fused attention of five dimensions
        mixed = scores.softmax(-1) @ v
        return mixed.transpose(2, 3).flatten(3)  # (B, windows, h, n, d) -> (B, windows, n, C)

    def _mask(self, rows: "_Axis", columns: "_Axis") -> Tensor:
        """Return the addend of pairs that are not neighbours on the map, `(windows, 1, n, n)`."""
        w = self.mixer.window_size
        labels = rows.regions(w)[:, None] * 3 + columns.regions(w)
        if self.mixer.cut is MaskedPadding:
            real = rows.real()[:, None] * columns.real()
            labels = labels * real - (1 - real)
        labels = labels.reshape(rows.windows, w, columns.windows, w).transpose(1, 2)
        labels = labels.reshape(rows.windows * columns.windows, w * w)
        apart = labels[:, None, :, None] != labels[:, None, None, :]
        value = self.mixer.cut.mask_value
        table: Any = self.mixer.proj.weight
        return table.new_zeros(()).masked_fill(apart, max(value, -1e9))


class _Axis:
    """Rows or columns of a map: their number, and windows of w. The shift is a tensor of one integer.

    Sizes that meet tensors are tensors themselves: exporters know a symbolic size as an argument of a shape only.
    """

    def __init__(self, n: Any, windows: Any, w: int, shift: Tensor):
        self.n, self.windows, self.padded, self.shift = n, windows, windows * w, shift
        self.place = torch.arange(self.padded, device=shift.device)

    def regions(self, w: int) -> Tensor:
        """Return the region of each place of the rolled axis: 0, 1 in the last window, 2 for wrapped cells."""
        end = length(self.place)
        last = (self.place >= end - w).long() * (self.shift > 0).long()
        return last + (self.place >= end - self.shift).long()

    def real(self) -> Tensor:
        """Return 1 for each place of the padded and rolled axis that is no padding, else 0."""
        n = length(torch.arange(self.n, device=self.shift.device))
        return (torch.remainder(self.place + self.shift, length(self.place)) < n).long()


def length(place: Tensor) -> Tensor:
    """Return the number of places 0, 1, 2, ... as a tensor of one integer."""
    return place.amax(0, keepdim=True) + 1


def _roll(cells: Tensor, rows: Any, columns: Any, up: Tensor, left: Tensor) -> Tensor:
    """Roll a `(B, H, W, C)` map up and left by amounts that are tensors."""
    for axis, (size, shift) in enumerate(((rows, up), (columns, left)), 1):
        place = torch.arange(size, device=cells.device)
        cells = cells.index_select(axis, torch.remainder(place + shift, length(place)))
    return cells
