"""A figure of tiles with captions: as one image for a file, as HTML for a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup, escape
from PIL import Image

from vitrail.explain.image_grid import GAP, fit, panel
from vitrail.tasks.data_url import encode


class Tile(NamedTuple):
    """An image of a figure, and its caption."""

    image: Image.Image
    caption: str = ""


@dataclass(frozen=True)
class FigureGrid:
    """A titled figure of tiles.

    Args:
        title: one line above.
        tiles: the images, row by row; either all or none have captions.
        columns: tiles in a row, where there is room.
        note: small print below.
        side: longer side of a tile in pixels.
        gap: pixels between tiles.
        chart: SVG that a page shows in place of the tiles.

    Example:
        >>> grid = FigureGrid("Heads", [Tile(Image.new("RGB", (8, 8)), f"head {i}") for i in range(3)], columns=3)
        >>> grid.image().mode, grid.html().count("<figcaption>head")
        ('RGB', 3)
    """

    title: str
    tiles: Sequence[Tile]
    columns: int
    note: str = ""
    side: int = 224
    gap: int = GAP
    chart: str = ""

    def image(self) -> Image.Image:
        """Return everything as one image on white paper."""
        captions = [tile.caption for tile in self.tiles] if self.tiles[0].caption else []
        images = [tile.image for tile in self.tiles]
        return panel(images, self.columns, self.title, captions, self.note, self.side, self.gap)

    def html(self) -> Markup:
        """Return the figure as HTML; title, captions and note are text of the page, in its colours."""
        note = Markup("<figcaption>{}</figcaption>").format(self.note) if self.note else ""
        body = Markup(self.chart) if self.chart else self._shots() if self.tiles[0].caption else self._mosaic()
        return Markup('<figure class="panel"><h3>{}</h3>{}{}</figure>').format(self.title, body, note)

    def _shots(self) -> Markup:
        rows = " rows" if self.columns == 1 and len(self.tiles) > 1 else ""
        shots = Markup("").join(
            Markup('<figure><img src="{}" alt="{}"><figcaption>{}</figcaption></figure>').format(
                encode(tile.image if rows else _shrink(tile.image, 2 * self.side), exact=bool(rows)),
                f"{self.title}: {tile.caption}",
                tile.caption,
            )
            for tile in self.tiles
        )
        style = f"--side:{self.side}px;--columns:{self.columns}"
        return Markup('<div class="shots{}" style="{}">{}</div>').format(rows, style, shots)

    def _mosaic(self) -> Markup:
        """Return the tiles as one image with transparent gaps."""
        tiles = [fit(tile.image, self.side) for tile in self.tiles]
        columns = min(self.columns, len(tiles))
        width, height = max(tile.width for tile in tiles) + self.gap, max(tile.height for tile in tiles) + self.gap
        sheet = Image.new("RGBA", (columns * width - self.gap, -(-len(tiles) // columns) * height - self.gap))
        for i, tile in enumerate(tiles):
            sheet.paste(tile, (i % columns * width, i // columns * height))
        return Markup('<img class="mosaic" src="{}" alt="{}" width="{}" height="{}">').format(
            encode(sheet, exact=True), escape(self.title), *sheet.size
        )


def _shrink(image: Image.Image, side: int) -> Image.Image:
    """Return an image of at most `side` pixels: twice the size on a page, for fine screens."""
    if max(image.size) <= side:
        return image
    small = image.copy()
    small.thumbnail((side, side))
    return small
