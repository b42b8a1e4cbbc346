"""How much each token draws from each other in one layer: what attention maps and influence maps have in common."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from vitrail.explain.geometry import cell_size, centres
from vitrail.explain.layers import Layer
from vitrail.explain.query import Pixel, Query, token_of
from vitrail.grid import Grid


class Place(NamedTuple):
    """Where and on what a layer ran.

    Args:
        layer: the layer.
        grid: where its tokens sit.
        picture: rows and columns of the picture in pixels.
    """

    layer: Layer
    grid: Grid
    picture: tuple[int, int]

    @property
    def cell(self) -> tuple[int, int]:
        """Rows and columns of pixels that one cell covers."""
        return cell_size(self.picture, self.grid)

    def token(self, query: Query) -> int:
        """Return the index of the token that is meant, or say why there is none."""
        return token_of(query, self.grid, self.picture)

    @property
    def cover(self) -> tuple[float, float]:
        """Height and width of the grid in pictures: 1, or a little more where the picture was padded."""
        return self.grid.h * self.cell[0] / self.picture[0], self.grid.w * self.cell[1] / self.picture[1]

    def everywhere(self, query: Query | None) -> Query | None:
        """Return a query that means the same place on every other grid; prefix tokens stay what they are."""
        if query is None or isinstance(query, Pixel):
            return query
        cell = self.token(query) - self.grid.prefix
        if cell < 0:
            return query
        y, x = (cell // self.grid.w + 0.5) * self.cell[0], (cell % self.grid.w + 0.5) * self.cell[1]
        return Pixel(min(int(y), self.picture[0] - 1), min(int(x), self.picture[1] - 1))

    def spot(self, query: Query | None) -> tuple[float, float] | None:
        """Return the place of a query as shares of the picture's height and width; prefix tokens have none."""
        pixel = self.everywhere(query)
        if not isinstance(pixel, Pixel):
            return None
        return (pixel.y + 0.5) / self.picture[0], (pixel.x + 0.5) / self.picture[1]


class TokenMap(ABC):
    """The map of one layer, kept in groups: the tokens of a group mix with each other and with no others.

    Args:
        place: where and on what the layer ran.
        slots: which token sits in each place of each group, `(G, n)`; -1 is padding.
    """

    def __init__(self, place: Place, slots: Tensor):
        self.place, self.slots = place, slots
        self.layer, self.grid, self.picture = place

    @property
    @abstractmethod
    def probabilities(self) -> Tensor:
        """How much each query (row) draws from each key (column), `(B, G, h, n, n)`; rows sum to one."""

    @property
    def name(self) -> str:
        """Name of the layer in the model."""
        return self.layer.name

    @property
    def cell(self) -> tuple[int, int]:
        """Rows and columns of pixels that one cell covers."""
        return self.place.cell

    @property
    def centres(self) -> Tensor:
        """Centre of each cell in pixels, `(H * W, 2)`: row, column. Queries and keys sit at the same places."""
        return centres(self.grid, self.cell)

    def dense(self) -> Tensor:
        """Lift the groups to all tokens, `(B, h, N, N)`: zero between groups, without what went to padding.

        A row sums to one less its share in `padding()`.
        """
        maps, lost = self.probabilities, self.grid.tokens
        b, _, h = maps.shape[:3]
        keys = self._safe_slots(maps.device)  # (G, n), padding at N
        full = maps.new_zeros(b, h, lost + 1, lost + 1)
        full[:, :, keys[:, :, None], keys[:, None, :]] = maps.transpose(1, 2)  # (B, G, h, n, n) -> (B, h, G, n, n)
        return full[:, :, :lost, :lost]

    def padding(self) -> Tensor:
        """Return what each query spends on padding, `(B, h, N)`."""
        maps = self.probabilities
        spent = (maps * (self.slots < 0).to(maps)[:, None, None, :]).sum(-1)  # (B, G, h, n)
        return self._scatter(spent.transpose(1, 2))

    def row(self, query: Query) -> Tensor:
        """Return what one query draws from every token, `(B, h, N)`."""
        group, place = (self.slots == self.place.token(query)).nonzero()[0].tolist()
        drawn = self.probabilities[:, group, :, place]  # (B, h, n)
        keys = self._safe_slots(drawn.device)[group]
        full = drawn.new_zeros(*drawn.shape[:2], self.grid.tokens + 1)
        full[:, :, keys] = drawn
        return full[:, :, :-1]

    def row_picture(self, query: Query) -> Tensor:
        """Return what one query draws from every cell, `(B, h, H, W)`; the prefix is left out."""
        return self.over_cells(self.row(query))

    def received(self) -> Tensor:
        """Return what each cell gives to a query on average over all queries, `(B, h, H, W)`."""
        maps = self.probabilities
        real = (self.slots >= 0).to(maps)[:, None, :, None]  # a padded query asks for nothing
        given = (maps * real).sum(-2)  # (B, G, h, n)
        return self.over_cells(self._scatter(given.transpose(1, 2)) / self.grid.tokens)

    def over_cells(self, tokens: Tensor) -> Tensor:
        """Lay `(..., N)` values out as rows and columns, `(..., H, W)`, without the prefix."""
        return tokens[..., self.grid.prefix :].unflatten(-1, (self.grid.h, self.grid.w))

    def _scatter(self, grouped: Tensor) -> Tensor:
        """Put `(..., G, n)` values in the places of their tokens, `(..., N)`."""
        full = grouped.new_zeros(*grouped.shape[:-2], self.grid.tokens + 1)
        full[..., self._safe_slots(grouped.device)] = grouped
        return full[..., :-1]

    def _safe_slots(self, device: torch.device) -> Tensor:
        slots = self.slots.to(device)
        return torch.where(slots < 0, self.grid.tokens, slots)
