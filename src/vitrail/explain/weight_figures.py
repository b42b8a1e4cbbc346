"""Figures of the weights, independent of images: positions, position biases, patch filters."""

from PIL import Image, ImageDraw
from torch import Tensor, nn

from vitrail.explain.blocks import mixing_blocks
from vitrail.explain.filters import principal_filters
from vitrail.explain.image_grid import FAINT, PAPER, font, panel
from vitrail.explain.overlay import paint
from vitrail.explain.positions import position_similarity, relative_bias


def filters_figure(model: nn.Module) -> Image.Image:
    """Draw the principal components of the patch filters, strongest first."""
    components = principal_filters(model)
    tiles = [_filter(component) for component in components]
    note = "Directions in the space of filters, strongest first; grey is zero. ViT paper, figure 7, left."
    return panel(tiles, 7, "Principal components of the patch filters", note=note, side=72, gap=4)


def _filter(component: Tensor) -> Image.Image:
    channels = component[:3] if len(component) >= 3 else component[:1].expand(3, -1, -1)
    light = 0.5 + channels / (2 * channels.abs().max().clamp_min(1e-12))
    return Image.fromarray((light * 255).round().byte().permute(1, 2, 0).numpy())


def positions_figure(model: nn.Module, most: int = 14) -> Image.Image:
    """Draw, for each cell, how alike its learned position is to that of every other cell."""
    similarity = position_similarity(model)
    step = -(-max(similarity.shape[:2]) // most)
    rows = similarity[::step, ::step]
    tiles = [paint((one.clamp(-1, 1) + 1) / 2, "viridis") for row in rows for one in row]
    note = (
        "The tile in row r, column c compares the position of that cell with all others: yellow is alike (cosine 1), "
        "violet opposed (-1)." + (f" Every {step}th row and column is shown." if step > 1 else "")
    )
    return panel(tiles, rows.shape[1], "Position embedding similarity", note=note, side=44, gap=3)


def bias_figure(model: nn.Module) -> Image.Image:
    """Draw the relative position bias of every block, one row of heads each."""
    titles = {f"{block.name}.position": block.title for block in mixing_blocks(model)}
    tables = relative_bias(model)
    widest = max(len(table) for table in tables.values())
    strips = [_strip(titles.get(name, name), table, widest) for name, table in tables.items()]
    note = (
        "One row a block, first block on top, one tile a head, from head 0; the query sits in the centre of a tile. "
        "Red raises the score of keys at that offset, blue lowers it; each row is scaled by itself."
    )
    return panel(strips, 1, "Relative position bias", note=note, side=strips[0].width, gap=4)


def _strip(title: str, table: Tensor, tiles: int, side: int = 39) -> Image.Image:
    margin, step, strength = 80, side + 3, table.abs().max().clamp_min(1e-12)
    strip = Image.new("RGB", (margin + tiles * step, side), PAPER)
    ImageDraw.Draw(strip).text((0, side / 2), title, FAINT, font(12), anchor="lm")
    for i, head in enumerate(table):
        tile = paint(0.5 + head / (2 * strength), "RdBu_r").resize((side, side), Image.Resampling.NEAREST)
        strip.paste(tile, (margin + i * step, 0))
    return strip
