"""One heat map a picture, by the method that is asked for or the best one that the model offers."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from vitrail.errors import VitrailError, unknown
from vitrail.explain.influence import influence_rows
from vitrail.explain.layers import attending_layers, backbone_of, evaluating, mixing_layers
from vitrail.explain.maps import AttentionMap, attention_maps, no_maps
from vitrail.explain.query import Pixel, Query, centre
from vitrail.explain.rollout import rollout
from vitrail.explain.saliency import receptive_field, saliency
from vitrail.explain.token_map import Place
from vitrail.grid import Grid


class Look(NamedTuple):
    """What to look at.

    Args:
        method: `maps`, `rollout`, `influence`, `saliency`, or `auto`: see `settle`.
        layer: index of the layer, for `maps` and `influence`; the last by default.
        head: one head of `maps`; their mean by default.
        query: whose view to show. By default, for `maps`: the class token, or where there is none what each cell gives
            on average; for `rollout`: what the head reads; for `influence`: the cell in the centre; for `saliency`: the
            class that the model names.
    """

    method: str = "auto"
    layer: int | None = None
    head: int | None = None
    query: Query | None = None

    @property
    def at(self) -> int:
        """Index of the layer."""
        return -1 if self.layer is None else self.layer

    def describe(self) -> str:
        """Say in a few words what is shown.

        Example:
            >>> Look("maps", layer=3, head=1, query=(5, 7)).describe()
            'layer 3, head 1, seen from row 5, column 7'
        """
        layer = "last layer" if self.at == -1 else f"layer {self.at}"
        said = [layer] if self.method in ("maps", "influence") else [self.method]
        if self.head is not None:
            said.append(f"head {self.head}")
        if isinstance(self.query, Pixel):
            said.append(f"seen from pixel {self.query.y}, {self.query.x}")
        elif self.query is not None:
            place = f"token {self.query}" if isinstance(self.query, int) else "row {}, column {}".format(*self.query)
            said.append(f"seen from {place}")
        return ", ".join(said)


AUTO = Look()


class Heat(NamedTuple):
    """Values on a grid over pictures.

    Args:
        values: `(B, H, W)`.
        cover: height and width of the grid in pictures: 1, or a little more where the picture was padded.
        spot: whose view it is, as shares of the picture's height and width; None where it is nobody's in the picture.
        robust: share of the values to cut off at each end when they are drawn.
    """

    values: Tensor
    cover: tuple[float, float] = (1.0, 1.0)
    spot: tuple[float, float] | None = None
    robust: float = 0.025


def heat(model: nn.Module, images: Tensor, look: Look = AUTO) -> Heat:
    """Compute the heat maps of prepared pictures `(B, C, Y, X)`.

    Raises:
        VitrailError: if the method is unknown, or the model does not offer it.
    """
    return METHODS[settle(model, look).method](model, images, look)


def settle(model: nn.Module, look: Look) -> Look:
    """Replace `auto` by a method: the best one, or one that knows layers, heads or queries where one is asked for.

    Raises:
        VitrailError: if the method is unknown.
    """
    if look.method not in (*METHODS, "auto"):
        raise unknown("method", look.method, [*METHODS, "auto"])
    if look.method != "auto":
        return look
    if look == AUTO:
        return look._replace(method=best_method(model))
    return look._replace(method="maps" if attending_layers(model) else "influence")


def best_method(model: nn.Module) -> str:
    """Name the method that shows most: the rollout where there are maps, the saliency elsewhere."""
    return "rollout" if attending_layers(model) else "saliency"


def layer_view(map: AttentionMap, query: Query | None) -> Tensor:
    """Return each head's picture of one layer, `(B, h, H, W)`.

    The row of `query`; without one that of the class token, or what each cell gives on average where there is none.
    """
    if query is None and map.grid.prefix == 0:
        return map.received()
    return map.row_picture(0 if query is None else query)


def _maps(model: nn.Module, images: Tensor, look: Look) -> Heat:
    layers = attending_layers(model)
    if not layers:
        raise no_maps(model)
    with evaluating(model), torch.no_grad(), attention_maps(model) as maps:
        model(images)
    map = maps[look.at]
    if look.head is not None and not 0 <= look.head < map.heads:
        raise VitrailError(f"{map.layer.title} has heads 0 to {map.heads - 1}; there is no head {look.head}.")
    heads = layer_view(map, look.query)
    values = heads.mean(1) if look.head is None else heads[:, look.head]
    return Heat(values, map.place.cover, map.place.spot(look.query))


def _rollout(model: nn.Module, images: Tensor, look: Look) -> Heat:
    values = rollout(model, images, look.query)
    place = Place(attending_layers(model)[0], Grid(*values.shape[1:]), (images.shape[-2], images.shape[-1]))
    return Heat(values, place.cover, _spot(model, images, look.query))


def _influence(model: nn.Module, images: Tensor, look: Look) -> Heat:
    query = centre(images) if look.query is None else look.query
    [(place, row)] = influence_rows(model, images, query, layers=[look.at], probes=16)
    cells = row[:, place.grid.prefix :].unflatten(1, (place.grid.h, place.grid.w))
    return Heat(cells, place.cover, place.spot(query), robust=0.0)


def _saliency(model: nn.Module, images: Tensor, look: Look) -> Heat:
    if look.query is None:
        return Heat(calm(saliency(model, images, samples=4)))
    field = calm(receptive_field(model, images, look.query))
    return Heat(field, spot=_spot(model, images, look.query), robust=0.005)


def _spot(model: nn.Module, images: Tensor, query: Query | None) -> tuple[float, float] | None:
    """Return the place of a query on the last grid."""
    if query is None:
        return None
    with evaluating(model), torch.no_grad():
        grid = backbone_of(model)(images).grid
    return Place(mixing_layers(model)[-1], grid, (images.shape[-2], images.shape[-1])).spot(query)


def calm(pixels: Tensor, cells: int = 28) -> Tensor:
    """Average the grain of a gradient over small squares, `cells` to the shorter side."""
    scale = max(1, min(pixels.shape[-2:]) // cells)
    return adaptive_avg_pool2d(pixels[:, None], (pixels.shape[-2] // scale, pixels.shape[-1] // scale))[:, 0]


METHODS: dict[str, Callable[[nn.Module, Tensor, Look], Heat]] = {
    "maps": _maps,
    "rollout": _rollout,
    "influence": _influence,
    "saliency": _saliency,
}
