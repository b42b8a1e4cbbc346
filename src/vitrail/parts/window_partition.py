"""Window partition of a map, with or without cyclic shift, at any size.

A partition is a value: the size of the map, of the window and of the shift, without state between two images. The
padding conventions agree if the map is a multiple of the window and differ otherwise; each is a class here:

- `PadThenRoll`: torchvision, and the order of Hugging Face and of the authors' detection code. Padding takes part as
  keys.
- `RollThenPad`: timm. The map is rolled first, so wrapped tokens are not always kept apart.
- `MaskedPadding`: padding is masked, so the output does not depend on its amount.
"""

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitrail.grid import Grid
from vitrail.shapes import FeatureMap

Pair = tuple[int, int]


@dataclass(frozen=True)
class PadThenRoll:
    """Pad to a multiple of the window, roll by the shift, cut.

    Swin Transformer, section 3.2, figure 4. The shift is there to connect neighbouring windows, so an axis that one
    window covers is not shifted and the other axis is, as in torchvision and timm. The authors' classification code and
    Hugging Face shift neither axis then, the authors' detection code shifts both always.

    Args:
        size: rows and columns of the map.
        window: rows and columns of a window.
        shift: rows and columns that the map is rolled by, up and left.

    Example:
        >>> cut = PadThenRoll.of(Grid(8, 7), window=7, shift=3)
        >>> cut.shift, cut.padded, cut.split(torch.zeros(2, 8, 7, 5)).shape
        ((3, 0), (14, 7), torch.Size([2, 2, 49, 5]))
    """

    size: Pair
    window: Pair
    shift: Pair

    mask_value = -100.0  # the authors' value: small enough to vanish in a softmax, kept for parity

    @classmethod
    def of(cls, grid: Grid, window: int, shift: int) -> "PadThenRoll":
        """Choose the cut of one grid."""
        size = (grid.h, grid.w)
        return cls(size, (window, window), tuple(0 if n <= window else shift for n in size))  # pyright: ignore

    @property
    def padded(self) -> Pair:
        """Rows and columns after padding."""
        (h, w), (wh, ww) = self.size, self.window
        return -(-h // wh) * wh, -(-w // ww) * ww

    def pad_and_roll(self, cells: Tensor) -> Tensor:
        """Pad and roll a `(B, H, W, C)` map so that windows are plain tiles."""
        return self._roll(self._pad(cells), -1)

    def undo(self, laid: Tensor) -> Tensor:
        """Undo `pad_and_roll`."""
        return self._crop(self._roll(laid, 1))

    def split(self, cells: FeatureMap) -> Tensor:
        """Cut a map into `(B, windows, n, C)`."""
        return tile(self.pad_and_roll(cells), self.window)

    def join(self, windows: Tensor) -> Tensor:
        """Undo `split`."""
        return self.undo(untile(windows, self.window, self.padded))

    def separate(self, bias: Tensor | None, like: Tensor) -> Tensor | None:
        """Add the mask of shifted windows to a bias `(h, n, n)`: pairs of tokens that are not neighbours on the map.

        Returns:
            `(h, n, n)` where all windows are alike, else `(windows, h or 1, n, n)`, or None.
        """
        addends = self.bias_plus_mask(bias, like)
        if addends is None or not self.needs_mask:
            return None if addends is None else addends[0]
        return addends[self.mask_index(like.device)]

    def bias_plus_mask(self, bias: Tensor | None, like: Tensor) -> Tensor | None:
        """Do the same for each kind of window: `(masks, h or 1, n, n)`, or None."""
        if not self.needs_mask:
            return None if bias is None else bias[None]
        mask = self._mask(like)
        return mask if bias is None else bias + mask

    @property
    def needs_mask(self) -> bool:
        """Whether some tokens that share a window are kept apart."""
        return any(self.shift)

    def token_index(self, device: torch.device | None = None) -> Tensor:
        """Say which cell sits in each place of each window, `(windows, n)`; -1 is padding."""
        h, w = self.size
        cells = torch.arange(1, h * w + 1, device=device).reshape(1, h, w, 1)
        return tile(self.pad_and_roll(cells), self.window)[0, ..., 0] - 1

    def mask_index(self, device: torch.device | None = None) -> Tensor:
        """Say of which kind each window is, `(windows,)`: windows of one kind keep the same pairs apart.

        Example:
            >>> PadThenRoll.of(Grid(12, 16), window=4, shift=2).mask_index().reshape(3, 4).tolist()
            [[0, 0, 0, 1], [0, 0, 0, 1], [2, 2, 2, 3]]
        """
        rows, columns = (
            (torch.arange(count, device=device) - first).clamp(min=0)
            for count, first in zip(self._counts, self._first, strict=True)
        )
        return (rows[:, None] * (self._counts[1] - self._first[1]) + columns).flatten()

    @property
    def _counts(self) -> Pair:
        """Windows on each axis."""
        return self.padded[0] // self.window[0], self.padded[1] // self.window[1]

    @property
    def _first(self) -> Pair:
        """The first window of each axis with the mask of all windows before it; later ones have their own masks."""
        rows, columns = (max(n // w - 1, 0) for n, w in zip(self._even(), self.window, strict=True))
        return rows, columns

    def _even(self) -> Pair:
        """How many rows and columns of the laid map are one region, from the start."""
        rows, columns = (p - w * (s > 0) for p, w, s in zip(self.padded, self.window, self.shift, strict=True))
        return rows, columns

    def _mask(self, like: Tensor) -> Tensor:
        labels = tile(self._labels(like)[None, ..., None], self.window)[0, ..., 0].unflatten(0, self._counts)
        labels = labels[self._first[0] :, self._first[1] :].flatten(0, 1)  # (rows, columns, n) -> (masks, n)
        apart = labels[:, None, :, None] != labels[:, None, None, :]  # (masks, 1, n, n)
        return like.new_zeros(()).masked_fill(apart, self.mask_value)

    def _labels(self, like: Tensor) -> Tensor:
        """Number the regions of the laid map that came from different places of the map."""
        rows, columns = (
            region(n, w, s, like.device) for n, w, s in zip(self.padded, self.window, self.shift, strict=True)
        )
        return rows[:, None] * 3 + columns

    def _pad(self, x: Tensor) -> Tensor:
        extra = (0, 0, 0, self.padded[1] - self.size[1], 0, self.padded[0] - self.size[0])
        return pad(x, extra) if any(extra) else x

    def _crop(self, x: Tensor) -> Tensor:
        return x[:, : self.size[0], : self.size[1]]

    def _roll(self, x: Tensor, direction: int) -> Tensor:
        if not any(self.shift):
            return x
        return x.roll((direction * self.shift[0], direction * self.shift[1]), dims=(1, 2))


class RollThenPad(PadThenRoll):
    """Roll the map, then pad it: timm's order. A window shrinks to an axis that is shorter than it."""

    @classmethod
    def of(cls, grid: Grid, window: int, shift: int) -> "PadThenRoll":
        """Choose the cut of one grid."""
        size = (grid.h, grid.w)
        return cls(size, tuple(min(n, window) for n in size), tuple(0 if n <= window else shift for n in size))  # pyright: ignore

    def pad_and_roll(self, cells: Tensor) -> Tensor:
        """Roll, then pad."""
        return self._pad(self._roll(cells, -1))

    def undo(self, laid: Tensor) -> Tensor:
        """Undo `pad_and_roll`."""
        return self._roll(self._crop(laid), 1)


class AlwaysShifted(PadThenRoll):
    """Pad, then roll both axes, even an axis that one window covers, as in SwinIR and Swin's detection code."""

    @classmethod
    def of(cls, grid: Grid, window: int, shift: int) -> "PadThenRoll":
        """Choose the cut of one grid."""
        return cls((grid.h, grid.w), (window, window), (shift, shift))


class MaskedPadding(PadThenRoll):
    """Padding is a region of its own that no cell attends to, with any amount of it."""

    mask_value = -inf

    @property
    def needs_mask(self) -> bool:
        """Whether there is a shift or padding."""
        return any(self.shift) or self.padded != self.size

    def _even(self) -> Pair:
        rows, columns = (min(e, n - s) for e, n, s in zip(super()._even(), self.size, self.shift, strict=True))
        return rows, columns

    def _labels(self, like: Tensor) -> Tensor:
        regions = super()._labels(like)
        real = self.pad_and_roll(torch.ones(1, *self.size, 1, device=like.device))[0, ..., 0]
        return torch.where(real > 0, regions, -1)


def tile(laid: Tensor, window: Pair) -> Tensor:
    """Cut a `(B, H, W, C)` map into tiles, row by row: `(B, tiles, n, C)`.

    Example:
        >>> tile(torch.zeros(1, 4, 6, 8), (2, 2)).shape
        torch.Size([1, 6, 4, 8])
    """
    x = laid.unflatten(2, (-1, window[1])).unflatten(1, (-1, window[0]))  # (B, H/h, h, W/w, w, C)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # -> (B, tiles, hw, C)


def untile(tiles: Tensor, window: Pair, size: Pair) -> Tensor:
    """Undo `tile` for a map of `size`.

    Example:
        >>> cells = torch.randn(1, 4, 6, 8)
        >>> torch.equal(untile(tile(cells, (2, 2)), (2, 2), (4, 6)), cells)
        True
    """
    x = tiles.unflatten(2, window).unflatten(1, (-1, size[1] // window[1]))  # (B, H/h, W/w, h, w, C)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # -> (B, H, W, C)


def region(length: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Number the regions of a rolled axis: 0 before the last window, 1 in it, 2 for wrapped tokens.

    Example:
        >>> region(6, window=3, shift=1, device=torch.device("cpu")).tolist()
        [0, 0, 0, 1, 1, 2]
    """
    place = torch.arange(length, device=device)
    return (place >= length - window).long() * int(shift > 0) + (place >= length - shift).long()
