"""Means of a map over a grid of a given size, also for maps whose size is symbolic."""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from vitrail.parts.convolutions import ChannelsFirst


def adaptive_mean(cells: ChannelsFirst, side: int) -> Tensor:
    """Return the mean of each cell of a `side x side` grid over a map: `(B, C, side, side)`.

    Cell i of an axis of n cells is the mean from floor(i n / side) to ceil((i + 1) n / side). While a program of any
    size is exported it is a product with a matrix of these means, since runtimes pool to a fixed grid only from maps
    of a known size.

    Example:
        >>> adaptive_mean(torch.arange(6.0).reshape(1, 1, 2, 3), 2).flatten().tolist()
        [0.5, 1.5, 3.5, 4.5]
    """
    h, w = cells.shape[-2:]
    if type(h) is int and type(w) is int:
        return adaptive_avg_pool2d(cells, side)
    return means(h, side, cells) @ cells @ means(w, side, cells).mT


def means(n: int | torch.SymInt, side: int, like: Tensor) -> Tensor:
    """Return the matrix `(side, n)` of the means along an axis of n cells, n maybe symbolic.

    Example:
        >>> means(3, 2, torch.zeros(1)).tolist()
        [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]
    """
    place = torch.arange(n, device=like.device)
    count, cell = place.amax(0, keepdim=True) + 1, torch.arange(side, device=like.device)[:, None]
    first = torch.div(cell * count, side, rounding_mode="floor")
    last = torch.div((cell + 1) * count + side - 1, side, rounding_mode="floor")
    inside = (place >= first).to(like.dtype) * (place < last).to(like.dtype)
    return inside / (last - first).to(like.dtype)
