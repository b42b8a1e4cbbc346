"""How one axis of a map is cut into tiles of queries and patches of keys that hold all neighbours of the tile."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitrail.kernels.neighborhood.window import check_length, window_start


@dataclass(frozen=True)
class Axis:
    """The cut of one axis; each group of the dilation is cut alike.

    Tile j holds the queries `j * side` to `(j + 1) * side - 1` of a group, patch j the keys from `j * step - front` on.

    Args:
        length: cells of the map.
        kernel_size: odd side k of a neighborhood.
        dilation: step between two neighbours, which is the number of groups.
        tiles: tiles n of each group.

    Example:
        >>> axis = Axis.of(28, kernel_size=7, dilation=1)
        >>> axis.tiles, axis.side, axis.patch
        (4, 7, 13)
    """

    length: int
    kernel_size: int
    dilation: int
    tiles: int

    @classmethod
    def of(cls, length: int, kernel_size: int, dilation: int) -> "Axis":
        """Cut an axis into tiles about as long as the kernel, or longer ones where the borders want it.

        Windows that a border shifts must stay within their patches; the first and the last tile need (k + 1) / 2 cells
        for that, in the shortest group too.
        """
        length = int(length)  # `torch.jit.trace` gives sizes as tensors
        check_length(length, kernel_size, dilation)
        shortest, half = length // dilation, kernel_size // 2 + 1
        most = max(round(shortest / kernel_size), 1)
        cuts = (cls(length, kernel_size, dilation, tiles) for tiles in range(most, 1, -1))
        fitting = (cut for cut in cuts if cut.side >= half and (cut.tiles - 1) * cut.side + half <= shortest)
        return next(fitting, cls(length, kernel_size, dilation, 1))

    @property
    def side(self) -> int:
        """Queries t of a tile."""
        return -(-self.length // (self.dilation * self.tiles))

    @property
    def reach(self) -> int:
        """Cells to each side that a window spans away from the borders."""
        return self.kernel_size // 2

    @property
    def patch(self) -> int:
        """Keys p of a patch; a tile at a border reaches to one side only."""
        return self.side + self.reach * min(self.tiles - 1, 2)

    @property
    def step(self) -> int:
        """Keys from the start of a patch to the start of the next."""
        return self.side - self.reach if self.tiles == 2 else self.side

    @property
    def front(self) -> int:
        """Places of padding before the first key of each group."""
        return self.reach if self.tiles > 2 else 0

    @property
    def query_padding(self) -> tuple[int, int]:
        """Padding in front and at the end, so that tiles are plain slices."""
        return 0, self.tiles * self.side * self.dilation - self.length

    @property
    def key_padding(self) -> tuple[int, int]:
        """Padding in front and at the end, so that patches are plain slices."""
        front = self.front * self.dilation
        return front, ((self.tiles - 1) * self.step + self.patch) * self.dilation - self.length - front

    def near(self, device: torch.device) -> Tensor:
        """Say which keys of its patch each query attends to, `(s, kinds, t, p)`; s is 1 where all groups are alike."""
        groups = torch.arange(self.dilation if self.length % self.dilation else 1, device=device)
        in_group = ((self.length - groups + self.dilation - 1) // self.dilation)[:, None, None]
        query, key = self._places(device)
        since = key[:, None, :] - window_start(query, in_group, self.kernel_size)[..., None]
        return (since >= 0) & (since < self.kernel_size)

    def offsets(self, device: torch.device) -> Tensor:
        """Return query minus key plus k - 1, `(2 or 1, t, p)`: for each tile where there are two, else for all alike.

        A pair that is too far apart to have an offset gets the nearest one; it is no pair of neighbours anyway.
        """
        query, key = self._places(device)
        apart = (query[:, :, None] - key[:, None, :])[: 2 if self.tiles == 2 else 1]
        return (apart + self.kernel_size - 1).clamp(0, 2 * self.kernel_size - 2)

    def spread(self, kinds: Tensor, dim: int) -> Tensor:
        """Expand values per kind of tile to values per tile."""
        if self.tiles <= 3:
            return kinds
        first, inner, last = kinds.split(1, dim)
        sizes = [self.tiles - 2 if i == dim else -1 for i in range(kinds.ndim)]
        return torch.cat([first, inner.expand(sizes), last], dim)

    def _places(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the places of queries `(kinds, t)` and keys `(kinds, p)` within a group.

        Away from the borders all tiles are alike, so there are no more than three kinds: first, inner and last.
        """
        tile = torch.arange(min(self.tiles, 3), device=device)[:, None]
        if self.tiles > 3:
            tile = tile + (tile == 2) * (self.tiles - 3)  # 0, 1, n - 1
        query = tile * self.side + torch.arange(self.side, device=device)
        return query, tile * self.step - self.front + torch.arange(self.patch, device=device)
