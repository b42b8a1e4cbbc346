"""Token-to-token map of one block: base class of attention maps and influence maps."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from vitrail.explain.blocks import MixingBlock
from vitrail.explain.geometry import cell_size, centres
from vitrail.explain.token_query import Pixel, Query, token_of
from vitrail.grid import Grid


class BlockContext(NamedTuple):
    """A block, its grid and the size of the image.

    Args:
        block: the block.
        grid: where its tokens sit.
        image_size: rows and columns of the image in pixels.
    """

    block: MixingBlock
    grid: Grid
    image_size: tuple[int, int]

    @property
    def cell(self) -> tuple[int, int]:
        """Rows and columns of pixels that one cell covers."""
        return cell_size(self.image_size, self.grid)

    def token(self, query: Query) -> int:
        """Return the index of the token of a query, or raise an error with the reason."""
        return token_of(query, self.grid, self.image_size)

    @property
    def cover(self) -> tuple[float, float]:
        """Height and width of the grid in images: 1, or a little more where the image was padded."""
        return self.grid.h * self.cell[0] / self.image_size[0], self.grid.w * self.cell[1] / self.image_size[1]

    def everywhere(self, query: Query | None) -> Query | None:
        """Return a query for the same position on every other grid; prefix tokens are unchanged."""
        if query is None or isinstance(query, Pixel):
            return query
        cell = self.token(query) - self.grid.prefix
        if cell < 0:
            return query
        y, x = (cell // self.grid.w + 0.5) * self.cell[0], (cell % self.grid.w + 0.5) * self.cell[1]
        return Pixel(min(int(y), self.image_size[0] - 1), min(int(x), self.image_size[1] - 1))

    def spot(self, query: Query | None) -> tuple[float, float] | None:
        """Return `centre_of` the query on this grid."""
        return centre_of(query, self.grid, self.image_size)


def centre_of(query: Query | None, grid: Grid, image: tuple[int, int]) -> tuple[float, float] | None:
    """Return the centre of the cell of a query, as fractions of the image's height and width.

    It is clamped to the image if the cell is padded; None for a prefix token or no query.
    """
    cell = -1 if query is None else token_of(query, grid, image) - grid.prefix
    if cell < 0:
        return None
    y, x = (centres(grid, cell_size(image, grid))[cell] / torch.tensor(image)).clamp_max(1).tolist()
    return y, x


class TokenMap(ABC):
    """The map of one block, in groups: the queries of a group attend to the keys of the group only.

    In most blocks queries and keys of a group are the same tokens; if each query has its own keys, it is its own group.

    Args:
        place: block, grid and image size.
        slots: token index of each query of each group, `(G, n)`; -1 is padding.
        keys: token index of each key of each group, `(G, m)`; by default the queries.
    """

    def __init__(self, place: BlockContext, slots: Tensor, keys: Tensor | None = None):
        self.place, self.slots, self.keys = place, slots, slots if keys is None else keys
        self.block, self.grid, self.image_size = place

    @property
    @abstractmethod
    def probabilities(self) -> Tensor:
        """Weight of each key (column) for each query (row), `(B, G, h, n, m)`; rows sum to one."""

    @property
    def name(self) -> str:
        """Name of the block in the model."""
        return self.block.name

    @property
    def cell(self) -> tuple[int, int]:
        """Rows and columns of pixels that one cell covers."""
        return self.place.cell

    @property
    def centres(self) -> Tensor:
        """Centre of each cell in pixels, `(H * W, 2)`: row, column. Queries and keys sit at the same places."""
        return centres(self.grid, self.cell)

    def dense(self) -> Tensor:
        """Scatter the groups to all tokens, `(B, h, N, N)`: zero between groups, without padding.

        A row sums to one minus `padding()`.
        """
        maps, lost = self.probabilities, self.grid.tokens
        b, _, h = maps.shape[:3]
        queries, keys = (self._safe(slots, maps.device) for slots in (self.slots, self.keys))  # padding at N
        full = maps.new_zeros(b, h, lost + 1, lost + 1)
        full[:, :, queries[:, :, None], keys[:, None, :]] = maps.transpose(1, 2)  # (B, G, h, n, m) -> (B, h, G, n, m)
        return full[:, :, :lost, :lost]

    def padding(self) -> Tensor:
        """Return the weight of padding for each query, `(B, h, N)`."""
        maps = self.probabilities
        spent = (maps * (self.keys < 0).to(maps)[:, None, None, :]).sum(-1)  # (B, G, h, n)
        return self.gathered(spent.transpose(1, 2), self.slots)

    def row(self, query: Query) -> Tensor:
        """Return the weights of one query on all tokens, `(B, h, N)`."""
        group, place = (self.slots == self.place.token(query)).nonzero()[0].tolist()
        return self.gathered(self.probabilities[:, group, None, :, place].transpose(1, 2), self.keys[group, None])

    def row_map(self, query: Query) -> Tensor:
        """Return the weights of one query on all cells, `(B, h, H, W)`, without the prefix."""
        return self.over_cells(self.row(query))

    def received(self) -> Tensor:
        """Return the mean weight of each cell over all queries, `(B, h, H, W)`."""
        maps = self.probabilities
        real = (self.slots >= 0).to(maps)[:, None, :, None]  # padded queries do not count
        given = (maps * real).sum(-2)  # (B, G, h, m)
        return self.over_cells(self.gathered(given.transpose(1, 2), self.keys) / self.grid.tokens)

    def over_cells(self, tokens: Tensor) -> Tensor:
        """Lay `(..., N)` values out as rows and columns, `(..., H, W)`, without the prefix."""
        return tokens[..., self.grid.prefix :].unflatten(-1, (self.grid.h, self.grid.w))

    def gathered(self, grouped: Tensor, slots: Tensor) -> Tensor:
        """Add `(..., G, n)` values up over the tokens that `slots` or `keys` name, `(..., N)`; padding is left out."""
        full = grouped.new_zeros(*grouped.shape[:-2], self.grid.tokens + 1)
        return full.index_add_(-1, self._safe(slots, grouped.device).flatten(), grouped.flatten(-2))[..., :-1]

    def _safe(self, slots: Tensor, device: torch.device) -> Tensor:
        slots = slots.to(device)
        return torch.where(slots < 0, self.grid.tokens, slots)
