"""Heatmaps of images, by the selected method or the default one of the model."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from vitrail.errors import VitrailError
from vitrail.explain.blocks import attending_blocks, backbone_of, name_of
from vitrail.explain.gradcam import gradcam
from vitrail.explain.influence import influence_rows
from vitrail.explain.maps import AttentionMap, attention_maps, no_maps
from vitrail.explain.options import AUTO, ExplainOptions, resolve_options
from vitrail.explain.rollout import rollout
from vitrail.explain.saliency import receptive_field, saliency
from vitrail.explain.token_map import BlockContext, centre_of
from vitrail.explain.token_query import Pixel, Query, centre
from vitrail.grid import Grid
from vitrail.parts.exported_file import check_layers
from vitrail.tasks.inference import evaluating


class Heatmap(NamedTuple):
    """Values on a grid over images.

    Args:
        values: `(B, H, W)`.
        title: title of the figure.
        cover: height and width of the grid in images: 1, or a little more if the image was padded.
        spot: position of the query, as fractions of the image's height and width; None if the query is no cell.
        robust: share of the values to cut off at each end when they are drawn.
    """

    values: Tensor
    title: str
    cover: tuple[float, float] = (1.0, 1.0)
    spot: tuple[float, float] | None = None
    robust: float = 0.025


def heatmap(model: nn.Module, images: Tensor, look: ExplainOptions = AUTO) -> Heatmap:
    """Compute the heatmaps of preprocessed images `(B, C, Y, X)`.

    Raises:
        VitrailError: if the method is unknown, does not take an option that is set, or the model does not support it.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=2, image_size=32).eval()
        >>> heatmap(model, torch.zeros(1, 3, 32, 32)).values.shape
        torch.Size([1, 2, 2])
    """
    check_layers(model, "its layers are needed to look inside")
    look = resolve_options(model, look)
    return METHODS[look.method](model, images, look)


def block_view(map: AttentionMap, query: Query | None) -> Tensor:
    """Return the attention of each head of one block, `(B, h, H, W)`.

    The row of `query`; by default that of the class token, or the mean over all queries if there is none.
    """
    if query is None and map.grid.prefix == 0:
        return map.received()
    return map.row_map(0 if query is None else query)


def viewpoint(map: AttentionMap, query: Query | None) -> str:
    """Describe the result of `block_view`."""
    if query is None:
        return "what the class token attends to" if map.grid.prefix else "attention that each cell receives"
    token = map.place.token(query)
    return f"what prefix token {token} attends to" if token < map.grid.prefix else "what the marked cell attends to"


def _maps(model: nn.Module, images: Tensor, look: ExplainOptions) -> Heatmap:
    if look.block is None:
        raise no_maps(model)
    with evaluating(model), torch.no_grad(), attention_maps(model) as maps:
        model(images)
    map = maps[look.block]
    if look.head is not None and not 0 <= look.head < map.heads:
        whose = f"{map.block.title} of {name_of(model)}"
        raise VitrailError(f"There is no head {look.head}: {whose} has {map.heads}, 0 to {map.heads - 1}.")
    heads = block_view(map, look.query)
    values = heads.mean(1) if look.head is None else heads[:, look.head]
    which = map.block.title if look.head is None else f"{map.block.title}, head {look.head}"
    title = f"Attention of {which}: {viewpoint(map, look.query)}"
    return Heatmap(values, title, map.place.cover, map.place.spot(look.query))


def _rollout(model: nn.Module, images: Tensor, look: ExplainOptions) -> Heatmap:
    values = rollout(model, images, look.query)
    place = BlockContext(attending_blocks(model)[0], Grid(*values.shape[1:]), (images.shape[-2], images.shape[-1]))
    reader = "the answer" if look.query is None else "the marked cell of the last block"
    title = f"Attention rollout: where {reader} draws from, through all blocks"
    return Heatmap(values, title, place.cover, _spot(model, images, look.query))


def _influence(model: nn.Module, images: Tensor, look: ExplainOptions) -> Heatmap:
    query = centre(images) if look.query is None else look.query
    assert look.block is not None, look
    [(place, row)] = influence_rows(model, images, query, blocks=[look.block], probes=16)
    cells = row[:, place.grid.prefix :].unflatten(1, (place.grid.h, place.grid.w))
    title = f"Influence: which cells move the marked one in {place.block.title}"
    return Heatmap(cells, title, place.cover, place.spot(query), robust=0.0)


def _gradcam(model: nn.Module, images: Tensor, look: ExplainOptions) -> Heatmap:
    assert look.block is not None, look
    place, values = gradcam(model, images, block=look.block)
    return Heatmap(values, f"Grad-CAM of the answer, at {place.block.title}", place.cover, robust=0.0)


def _saliency(model: nn.Module, images: Tensor, look: ExplainOptions) -> Heatmap:
    if look.query is None:
        return Heatmap(smooth(saliency(model, images, samples=4)), "Saliency: which pixels move the answer")
    if isinstance(look.query, Pixel) and _labels_pixels(model, images):
        place = ((look.query.y + 0.5) / images.shape[-2], (look.query.x + 0.5) / images.shape[-1])
        values = smooth(saliency(model, images, samples=4, pixel=look.query))
        return Heatmap(values, "Saliency: which pixels move the class of the marked one", spot=place)
    field = smooth(receptive_field(model, images, look.query))
    title = "Saliency: which pixels move the marked cell of the last stage"
    return Heatmap(field, title, spot=_spot(model, images, look.query), robust=0.005)


def _labels_pixels(model: nn.Module, images: Tensor) -> bool:
    """Return whether a model has scores for each pixel."""
    with evaluating(model), torch.no_grad():
        return model(images[:1]).ndim == 4


def _spot(model: nn.Module, images: Tensor, query: Query | None) -> tuple[float, float] | None:
    """Return the place of a query on the last grid."""
    if query is None:
        return None
    with evaluating(model), torch.no_grad():
        grid = backbone_of(model)(images).grid
    return centre_of(query, grid, (images.shape[-2], images.shape[-1]))


def smooth(pixels: Tensor, cells: int = 28) -> Tensor:
    """Average the grain of a gradient over small squares, `cells` to the shorter side."""
    scale = max(1, min(pixels.shape[-2:]) // cells)
    return adaptive_avg_pool2d(pixels[:, None], (pixels.shape[-2] // scale, pixels.shape[-1] // scale))[:, 0]


METHODS: dict[str, Callable[[nn.Module, Tensor, ExplainOptions], Heatmap]] = {
    "maps": _maps,
    "rollout": _rollout,
    "influence": _influence,
    "saliency": _saliency,
    "gradcam": _gradcam,
}
