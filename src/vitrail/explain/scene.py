"""One picture (a batch of one) seen by every head, every layer, every method."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vitrail.explain.heat import AUTO, Heat, Look, heat, layer_view
from vitrail.explain.influence import influence_rows
from vitrail.explain.layers import Layer, attending_layers, evaluating, mixing_layers
from vitrail.explain.maps import AttentionMap, AttentionMaps, attention_maps
from vitrail.explain.overlay import mark, overlay, seen
from vitrail.explain.panel import panel
from vitrail.explain.query import Query, centre
from vitrail.explain.token_map import Place


def draw_heat(picture: Image.Image, found: Heat, i: int = 0) -> Image.Image:
    """Lay the heat of picture `i` of a batch over it, with a ring on the place whose view it is."""
    tile = overlay(picture, found.values[i], found.cover, found.robust)
    return mark(tile, *found.spot) if found.spot else tile


def methods_scene(model: Any, images: Tensor, title: str = "Where it looks") -> Image.Image:
    """Draw what the model saw beside each answer of the whole model."""
    [picture] = seen(images, model.preprocess)
    if attending_layers(model):
        methods = {"rollout": "attention rollout", "maps": "attention of the last layer", "saliency": "saliency"}
        tiles = [draw_heat(picture, heat(model, images, Look(method))) for method in methods]
        captions = list(methods.values())
    else:
        looks = [Look("saliency"), Look("saliency", query=centre(images))]
        tiles = [draw_heat(picture, heat(model, images, look)) for look in looks]
        captions = ["saliency", "what moves the centre of the last stage"]
    return panel([picture, *tiles], len(tiles) + 1, title, ["what the model saw", *captions], side=256)


def heads_scene(model: Any, images: Tensor, look: Look = AUTO) -> Image.Image:
    """Draw each head of one layer."""
    map = _capture(model, images)[look.at]
    tiles = [_tile(model, images, map.place, head, look.query) for head in layer_view(map, look.query)[0]]
    title = f"Heads of {map.layer.title}: {_viewpoint(map, look.query)}"
    return panel(tiles, 6, title, [f"head {i}" for i in range(len(tiles))], side=176)


def layers_scene(model: Any, images: Tensor, look: Look = AUTO) -> Image.Image:
    """Draw the mean over heads of each layer; a query stays at its place on every grid."""
    maps = _capture(model, images)
    query = maps[look.at].place.everywhere(look.query)
    tiles = [_tile(model, images, map.place, layer_view(map, query)[0].mean(0), query) for map in maps]
    title = f"Layer by layer, mean over heads: {_viewpoint(maps[look.at], look.query)}"
    return panel(tiles, 6, title, [_caption(i, map.layer) for i, map in enumerate(maps)], side=150)


def influence_scene(model: Any, images: Tensor, look: Look = AUTO, most: int = 12) -> Image.Image:
    """Draw which cells move one cell in each mixer, by default the centre; of a deep model, some of the layers."""
    last = len(mixing_layers(model)) - 1
    chosen = sorted({round(i * last / (most - 1)) for i in range(most)})
    query = centre(images) if look.query is None else look.query
    [(place, _)] = influence_rows(model, images, query, [look.at], probes=1)  # on whose grid a row and a column count
    query = place.everywhere(query)
    found = influence_rows(model, images, query, chosen, probes=4)
    tiles = [_tile(model, images, place, _cells(place, row[0]), query, robust=0.0) for place, row in found]
    captions = [_caption(i, place.layer) for i, (place, _) in zip(chosen, found, strict=True)]
    return panel(tiles, 6, "Layer by layer: which cells move the marked one", captions, side=150)


def _capture(model: Any, images: Tensor) -> AttentionMaps:
    with evaluating(model), torch.no_grad(), attention_maps(model) as maps:
        model(images)
    return maps


def _tile(
    model: Any, images: Tensor, place: Place, values: Tensor, query: Query | None, robust: float = 0.025
) -> Image.Image:
    [picture] = seen(images, model.preprocess)
    return draw_heat(picture, Heat(values[None], place.cover, place.spot(query), robust))


def _caption(i: int, layer: Layer) -> str:
    return layer.title if layer.title == f"block {i}" else f"{i}: {layer.title}"


def _cells(place: Place, row: Tensor) -> Tensor:
    return row[place.grid.prefix :].unflatten(0, (place.grid.h, place.grid.w))


def _viewpoint(map: AttentionMap, query: Query | None) -> str:
    if query is None:
        return "what the class token attends to" if map.grid.prefix else "attention that each cell receives"
    if map.place.token(query) < map.grid.prefix:
        return f"what prefix token {map.place.token(query)} attends to"
    return "what the marked cell attends to"
