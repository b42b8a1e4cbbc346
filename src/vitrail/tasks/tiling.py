"""Tiled inference: an image of any size through a model of dense outputs, in bounded memory.

    read   |-------- halo --------|######## keep ########|-------- halo --------|

Each tile is read with a halo and contributes the part inside it. With a halo of at least the receptive field, and tiles
that start on the model's window grid, the result equals that of the whole image (`blend=False`). With a smaller halo
the seams are blended: two tiles overlap by twice the halo, and their weights cross over as half sines that sum to one.
Results are handed on in strips of finished rows, so the output image is never held in floats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isqrt, pi

import torch
from torch import Tensor

from vitrail.errors import ResourceError, VitrailError


@dataclass(frozen=True)
class TileSpan:
    """One tile along an axis, in input pixels: read `[start, stop)`, keep `[first, last)`."""

    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True)
class TilePlan:
    """Tiles of an image: every row span with every column span.

    Args:
        rows: spans of the height.
        columns: spans of the width.
        scale: output pixels for one input pixel, on each axis.
        blend: whether neighbours are blended over their overlap; else each pixel comes from one tile.
    """

    rows: tuple[TileSpan, ...]
    columns: tuple[TileSpan, ...]
    scale: int = 1
    blend: bool = False

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.rows) * len(self.columns)

    @property
    def overhead(self) -> float:
        """Pixels that are read for one pixel of the image; 1 without overlap."""
        read = [sum(span.stop - span.start for span in spans) for spans in (self.rows, self.columns)]
        return read[0] * read[1] / (self.size[0] * self.size[1])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.rows[-1].last, self.columns[-1].last


def plan_tiles(
    height: int, width: int, tile: int, halo: int, multiple: int = 1, scale: int = 1, blend: bool = False
) -> TilePlan:
    """Plan the tiles of an image.

    Args:
        height: rows of the image.
        width: columns of the image.
        tile: largest side of a tile, halo included; rounded down to the grid.
        halo: context on each inner side; rounded up to the grid.
        multiple: grid that tiles start on, such as the window of the model.
        scale: output pixels for one input pixel.
        blend: blend neighbours over their overlap of twice the halo.

    Raises:
        VitrailError: the tile has no room between its halos.

    Example:
        >>> plan_tiles(10, 24, tile=16, halo=4, multiple=4).columns
        (TileSpan(start=0, stop=16, first=0, last=12), TileSpan(start=8, stop=24, first=12, last=24))
    """
    tile, halo = tile // multiple * multiple, -(-halo // multiple) * multiple
    spans = [tuple(_spans(length, tile, halo)) for length in (height, width)]
    return TilePlan(spans[0], spans[1], scale, blend)


def _spans(length: int, tile: int, halo: int) -> list[TileSpan]:
    if length <= tile:
        return [TileSpan(0, length, 0, length)]
    if tile <= 2 * halo:
        raise VitrailError(f"A tile of {tile} pixels has no room between two halos of {halo}. Use larger tiles.")
    spans, first = [], 0
    while first < length:
        start = max(first - halo, 0)
        stop = min(start + tile, length)
        last = length if stop == length else stop - halo
        spans.append(TileSpan(start, stop, first, last))
        first = last
    return spans


def fitting_tile(budget: float, pixel_bytes: float, halo: int, multiple: int = 1) -> int:
    """Return the side of the largest square tile whose forward pass fits into a memory budget.

    Args:
        budget: bytes.
        pixel_bytes: bytes that a forward pass takes for each input pixel.
        halo: context on each side.
        multiple: grid of the tiles.

    Raises:
        ResourceError: not even a tile with one grid cell between its halos fits.

    Example:
        >>> fitting_tile(2**30, pixel_bytes=10_000, halo=16, multiple=8)
        320
    """
    tile = isqrt(int(budget / pixel_bytes)) // multiple * multiple
    least = 2 * (-(-halo // multiple)) * multiple + multiple
    if tile < least:
        raise ResourceError(
            f"Tiles with a halo of {halo} pixels need {least**2 * pixel_bytes / 2**30:.2f} GiB,"
            f" and the budget is {budget / 2**30:.2f} GiB.\nRaise the budget (--memory), or use --tiling fast."
        )
    return tile


@dataclass
class Seams:
    """Disagreement of tiles where they are blended.

    Args:
        squares: sum of squared differences.
        values: number of values compared.
        largest: largest difference.
    """

    squares: float = 0.0
    values: int = 0
    largest: float = 0.0

    def add(self, one: Tensor, other: Tensor) -> None:
        """Compare two predictions of the same pixels."""
        if one.numel():
            difference = (one - other).abs()
            self.squares += float((difference.double() ** 2).sum())
            self.values += difference.numel()
            self.largest = max(self.largest, float(difference.max()))

    @property
    def rms(self) -> float:
        """Root mean square of the differences; 0 without seams."""
        return (self.squares / self.values) ** 0.5 if self.values else 0.0


def run_tiles(
    plan: TilePlan,
    read: Callable[[slice, slice], Tensor],
    run: Callable[[Tensor], Tensor],
    write: Callable[[int, Tensor], None],
    progress: Callable[[int, int], None] = lambda done, count: None,
) -> Seams:
    """Run a model tile by tile.

    Args:
        plan: the tiles.
        read: returns input rows and columns, `(1, C, Y, X)`.
        run: model, `(1, C, y, x) -> (1, K, scale y, scale x)`.
        write: receives the number of the first row and finished output rows `(K, rows, X)`, from top to bottom.
        progress: receives the numbers of tiles done and of all tiles; it may raise to cancel.

    Returns:
        The disagreement of blended tiles.

    Example:
        >>> image, out = torch.rand(1, 1, 40, 30), torch.zeros(1, 40, 30)
        >>> plan = plan_tiles(40, 30, tile=16, halo=2)
        >>> def write(row, strip):
        ...     out[:, row : row + strip.shape[1]] = strip
        >>> seams = run_tiles(plan, lambda y, x: image[..., y, x], lambda x: x, write)
        >>> torch.equal(out, image[0])
        True
    """
    return _TileRun(plan, read, run, write, progress).all_rows()


@dataclass
class _TileRun:
    plan: TilePlan
    read: Callable[[slice, slice], Tensor]
    run: Callable[[Tensor], Tensor]
    write: Callable[[int, Tensor], None]
    progress: Callable[[int, int], None]
    seams: Seams = field(default_factory=Seams)
    done: int = 0

    def all_rows(self) -> Seams:
        rows, scale = self.plan.rows, self.plan.scale
        weighted = raw = None  # rows of the last strip that the next one overlaps, weighted sum and bare prediction
        for number, span in enumerate(rows):
            strip, bare = self._strip(number, keep_raw=self.plan.blend and len(rows) > 1)
            if weighted is not None:
                strip[:, : weighted.shape[1]] += weighted
            if raw is not None and bare is not None:
                zone = _zone(rows, number - 1, scale)
                self.seams.add(raw[:, zone], bare[:, : raw.shape[1]][:, zone])
            following = rows[number + 1].start if number + 1 < len(rows) else span.stop
            finished = (following - span.start) * scale
            self.write(span.start * scale, strip[:, :finished])
            weighted = strip[:, finished:].clone()
            raw = None if bare is None else bare[:, finished:].clone()
        return self.seams

    def _strip(self, number: int, keep_raw: bool) -> tuple[Tensor, Tensor | None]:
        """Return the weighted sum of a row of tiles, and with `keep_raw` their bare predictions."""
        span, scale, columns = self.plan.rows[number], self.plan.scale, self.plan.columns
        rows = slice(span.start, span.stop)
        down = _weights(self.plan.rows, number, self.plan.blend, scale)[None, :, None]
        strip = bare = before = None
        for i, column in enumerate(columns):
            out = self.run(self.read(rows, slice(column.start, column.stop)))[0].float()
            if strip is None:
                strip = out.new_zeros(out.shape[0], out.shape[1], self.plan.size[1] * scale)
                bare = torch.zeros_like(strip) if keep_raw else None
            place = slice(column.start * scale, column.stop * scale)
            across = _weights(columns, i, self.plan.blend, scale)[None, None]
            strip[..., place] += out * (down * across).to(out)
            if bare is not None:
                bare[..., place] = out
            if self.plan.blend and before is not None:
                overlap = (columns[i - 1].stop - column.start) * scale
                zone = _zone(columns, i - 1, scale)
                self.seams.add(before[..., -overlap:][..., zone], out[..., :overlap][..., zone])
            before = out
            self.done += 1
            self.progress(self.done, self.plan.count)
        assert strip is not None
        return strip, bare


def _weights(spans: Sequence[TileSpan], number: int, blend: bool, scale: int) -> Tensor:
    """Return the weight of each output pixel of a tile along an axis."""
    span = spans[number]
    weights = torch.ones((span.stop - span.start) * scale)
    if not blend:
        weights[: (span.first - span.start) * scale] = 0
        weights[(span.last - span.start) * scale :] = 0
        return weights
    if number > 0:
        overlap = (spans[number - 1].stop - span.start) * scale
        weights[:overlap] *= _ramp(overlap)
    if number + 1 < len(spans):
        overlap = (span.stop - spans[number + 1].start) * scale
        weights[-overlap:] *= 1 - _ramp(overlap)
    return weights


def _ramp(overlap: int) -> Tensor:
    """Return weights that rise from 0 to 1 over the middle half of an overlap; its outer quarters see a tile's edge."""
    position = (torch.arange(overlap) + 0.5) / overlap
    return 0.5 - 0.5 * torch.cos(pi * (2 * position - 0.5).clamp(0, 1))


def _zone(spans: Sequence[TileSpan], number: int, scale: int) -> slice:
    """Return the part of the overlap of a tile and the next in which both have weight."""
    overlap = (spans[number].stop - spans[number + 1].start) * scale
    return slice(overlap // 4, overlap - overlap // 4)
