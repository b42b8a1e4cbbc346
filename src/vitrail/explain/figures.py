"""One image (a batch of one) seen by every head, every block, every method."""

import torch
from PIL import Image
from torch import Tensor

from vitrail.errors import VitrailError
from vitrail.explain.blocks import MixingBlock, attending_blocks, mixing_blocks
from vitrail.explain.figure_grid import FigureGrid, Tile
from vitrail.explain.heatmap import Heatmap, block_view, heatmap, viewpoint
from vitrail.explain.influence import influence_rows
from vitrail.explain.maps import AttentionMap, AttentionMaps, attention_maps
from vitrail.explain.options import ExplainOptions
from vitrail.explain.overlay import contrast, mark, overlay, seen
from vitrail.explain.token_map import BlockContext
from vitrail.explain.token_query import Query, centre
from vitrail.parts.model import Model
from vitrail.tasks.inference import evaluating

SCALE = (
    "Bright places matter most; each map is scaled by itself. The number is its contrast, the largest value over the "
    "mean: nearly even maps (below 1.5x) stay dim."
)
ROLLOUT = "Rollout: which places reach the answer when attention is followed through all blocks."
SALIENCY = "Saliency: the pixels that move the answer most."


def draw_heat(image: Image.Image, found: Heatmap, i: int = 0) -> Image.Image:
    """Lay the heat of image `i` of a batch over it, with a ring on the place whose view it is."""
    tile = overlay(image, found.values[i], found.cover, found.robust)
    return mark(tile, *found.spot) if found.spot else tile


def heat_tile(image: Image.Image, found: Heatmap, caption: str) -> Tile:
    """Return the heat of the first image of a batch over it; the caption gets its contrast."""
    return Tile(draw_heat(image, found), f"{caption}, {contrast(found.values[0]):.1f}x")


def methods_scene(model: Model, images: Tensor, title: str = "Where it looks") -> FigureGrid:
    """Draw the preprocessed image next to the heatmap of each whole-model method."""
    [image] = seen(images, model.preprocess)
    if attending_blocks(model):
        methods = {"rollout": "attention rollout", "maps": "attention of the last block", "saliency": "saliency"}
        looks = [(ExplainOptions(method), caption) for method, caption in methods.items()]
        note = f"{ROLLOUT} {SALIENCY} {SCALE}"
    else:
        centred = ExplainOptions("saliency", query=centre(images))
        looks = [(ExplainOptions("saliency"), "saliency"), (centred, "what moves the centre of the last stage")]
        note = f"{SALIENCY} Last: the pixels that move the marked cell most. {SCALE}"
    tiles = [Tile(image, "what the model saw")]
    for look, caption in looks:
        try:
            tiles.append(heat_tile(image, heatmap(model, images, look), caption))
        except VitrailError as reason:  # one method without a meaning for this model
            note += f" Without {caption}: {str(reason).partition('.')[0]}."
    return FigureGrid(title, tiles, len(tiles), note, side=240)


def heads_scene(model: Model, images: Tensor, look: ExplainOptions) -> FigureGrid:
    """Draw each head of one block; `look` is settled."""
    map = _asked(_capture(model, images), look)
    heads = enumerate(block_view(map, look.query)[0])
    tiles = [_tile(model, images, map.place, head, look.query, f"head {i}") for i, head in heads]
    return FigureGrid(f"Heads of {map.block.title}: {viewpoint(map, look.query)}", tiles, 6, SCALE, side=176)


def blocks_scene(model: Model, images: Tensor, look: ExplainOptions) -> FigureGrid:
    """Draw the mean over heads of each block; a query stays at its place on every grid; `look` is settled."""
    maps = _capture(model, images)
    asked = _asked(maps, look)
    query = asked.place.everywhere(look.query)
    means = [(map, block_view(map, query)[0].mean(0)) for map in maps]
    tiles = [_tile(model, images, map.place, mean, query, map.block.title) for map, mean in means]
    title = f"Block by block, mean over heads: {viewpoint(asked, look.query)}"
    return FigureGrid(title, tiles, 6, _names(asked.block), side=150)


def influence_scene(model: Model, images: Tensor, look: ExplainOptions, most: int = 12) -> FigureGrid:
    """Draw which cells move one cell in each mixer, by default the centre; of a deep model, some of the blocks."""
    assert look.block is not None, look
    last = len(mixing_blocks(model)) - 1
    chosen = sorted({round(i * last / (most - 1)) for i in range(most)})
    query = centre(images) if look.query is None else look.query
    [(place, _)] = influence_rows(model, images, query, [look.block], probes=1)  # on whose grid a row and column count
    query = place.everywhere(query)
    found = influence_rows(model, images, query, chosen, probes=4)
    rows = [(place, _cells(place, row[0])) for place, row in found]
    tiles = [_tile(model, images, place, cells, query, place.block.title, robust=0.0) for place, cells in rows]
    return FigureGrid("Block by block: which cells move the marked one", tiles, 6, _names(place.block), side=150)


def _capture(model: Model, images: Tensor) -> AttentionMaps:
    with evaluating(model), torch.no_grad(), attention_maps(model) as maps:
        model(images)
    return maps


def _tile(
    model: Model,
    images: Tensor,
    place: BlockContext,
    values: Tensor,
    query: Query | None,
    caption: str,
    robust: float = 0.025,
) -> Tile:
    [image] = seen(images, model.preprocess)
    return heat_tile(image, Heatmap(values[None], "", place.cover, place.spot(query), robust), caption)


def _asked(maps: AttentionMaps, look: ExplainOptions) -> AttentionMap:
    assert look.block is not None, look
    return maps[look.block]


def _names(block: MixingBlock) -> str:
    """Say how the tiles of blocks are scaled, and how blocks are called where that needs a word."""
    staged = "." in block.address
    called = f"Block {block.address} is block {block.index} of stage {block.stage}, counted from 0. " if staged else ""
    return f"{called}{SCALE}"


def _cells(place: BlockContext, row: Tensor) -> Tensor:
    return row[place.grid.prefix :].unflatten(0, (place.grid.h, place.grid.w))
