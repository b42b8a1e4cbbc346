"""Which cells are a cell's neighbours: all that the backends must agree on.

A dilation of s parts each axis into s groups: cells 0, s, 2 s ... are one, cells 1, s + 1, 2 s + 1 ... the next. A cell
attends within its group, where its neighbours are side by side. At a border the window is shifted and not padded, so
every cell has exactly k neighbours on each axis and near a border they lie to one side of it.
"""

import torch
from torch import Tensor

from vitrail.errors import VitrailError


def window_start(place: Tensor, length: Tensor, kernel_size: int) -> Tensor:
    """Return the first of the k places that a place of a group attends to.

    start = min(max(i - (k - 1) / 2, 0), L - k)

    Args:
        place: places i within groups.
        length: how many cells L their groups have.
        kernel_size: side k of the window.

    Example:
        >>> window_start(torch.arange(6), torch.tensor(6), kernel_size=3).tolist()
        [0, 0, 1, 2, 3, 3]
    """
    return (place - kernel_size // 2).clamp(min=0).minimum(length - kernel_size)


def neighbours(length: int, kernel_size: int, dilation: int, device: torch.device | None = None) -> Tensor:
    """Return the neighbours of each cell of an axis, `(length, k)`, in order.

    Raises:
        VitrailError: if a group has fewer than k cells.

    Example:
        >>> neighbours(7, kernel_size=3, dilation=2)[:2].tolist()
        [[0, 2, 4], [1, 3, 5]]
    """
    check_length(length, kernel_size, dilation)
    cell = torch.arange(length, device=device)
    group, place = cell % dilation, cell // dilation
    in_group = (length - group + dilation - 1) // dilation
    start = window_start(place, in_group, kernel_size)
    return (start[:, None] + torch.arange(kernel_size, device=device)) * dilation + group[:, None]


def check_length(length: int, kernel_size: int, dilation: int) -> None:
    """Refuse an axis on which a cell has fewer than k neighbours."""
    if length < kernel_size * dilation:
        raise VitrailError(
            f"An axis of {length} cells has no neighborhoods of {kernel_size} cells {dilation} apart: "
            f"they need {kernel_size * dilation}.\nPad the map, or take a smaller kernel or dilation."
        )
