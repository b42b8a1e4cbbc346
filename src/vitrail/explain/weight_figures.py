"""Figures of the weights, independent of images: positions, position biases, patch filters."""

from PIL import Image
from torch import Tensor, nn

from vitrail.explain.blocks import mixing_blocks
from vitrail.explain.figure_grid import FigureGrid, Tile
from vitrail.explain.filters import principal_filters
from vitrail.explain.overlay import paint
from vitrail.explain.positions import position_similarity, relative_bias


def filters_figure(model: nn.Module) -> FigureGrid:
    """Draw the principal components of the patch filters, strongest first."""
    components = principal_filters(model)
    tiles = [Tile(_filter(component)) for component in components]
    note = (
        "Directions in the space of filters, strongest first; grey is zero. The analysis is the ViT paper's (figure 7)."
    )
    return FigureGrid("Principal components of the patch filters", tiles, 7, note, side=72, gap=4)


def _filter(component: Tensor) -> Image.Image:
    channels = component[:3] if len(component) >= 3 else component[:1].expand(3, -1, -1)
    light = 0.5 + channels / (2 * channels.abs().max().clamp_min(1e-12))
    return Image.fromarray((light * 255).round().byte().permute(1, 2, 0).numpy())


def positions_figure(model: nn.Module, most: int = 14) -> FigureGrid:
    """Draw, for each cell, how alike its learned position is to that of every other cell."""
    similarity = position_similarity(model)
    step = -(-max(similarity.shape[:2]) // most)
    rows = similarity[::step, ::step]
    tiles = [Tile(paint((one.clamp(-1, 1) + 1) / 2, "viridis")) for row in rows for one in row]
    note = (
        "The tile in row r, column c compares the position of that cell with all others: yellow is alike (cosine 1), "
        "violet opposed (-1)." + (f" Every {step}th row and column is shown." if step > 1 else "")
    )
    return FigureGrid("Position embedding similarity", tiles, rows.shape[1], note, side=44, gap=3)


def bias_figure(model: nn.Module) -> FigureGrid:
    """Draw the relative position bias of every block, one row of heads each."""
    titles = {f"{block.name}.position": block.title for block in mixing_blocks(model)}
    tables = relative_bias(model)
    widest = max(len(table) for table in tables.values())
    strips = [Tile(_strip(table, widest), titles.get(name, name)) for name, table in tables.items()]
    note = (
        "One row a block, first block on top, one tile a head, from head 0; the query sits in the centre of a tile. "
        "Red raises the score of keys at that offset, blue lowers it; each row is scaled by itself."
    )
    return FigureGrid("Relative position bias", strips, 1, note, side=strips[0].image.width, gap=4)


def _strip(table: Tensor, tiles: int, side: int = 39) -> Image.Image:
    step, strength = side + 3, table.abs().max().clamp_min(1e-12)
    strip = Image.new("RGBA", (tiles * step, side))
    for i, head in enumerate(table):
        tile = paint(0.5 + head / (2 * strength), "RdBu_r").resize((side, side), Image.Resampling.NEAREST)
        strip.paste(tile, (i * step, 0))
    return strip
