"""Neighborhood attention as the paper writes it: every query gathers its own keys and values."""

import torch
from torch import Tensor

from vitrail.kernels.neighborhood.window import neighbours
from vitrail.shapes import HeadMap


def neighborhood_map(q: HeadMap, k: HeadMap, bias: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """Compute the attention probabilities of each cell over its neighbours, `(B, H, W, h, k * k)`, row by row.

    A_i = softmax_j(q_i k_j^T / sqrt(d) + B(i, j)), j the neighbours of i

    "Neighborhood Attention Transformer" and "Dilated Neighborhood Attention Transformer", with the bias where the
    authors' code has it: their formula would divide it by sqrt(d) too.

    Args:
        q: queries.
        k: keys.
        bias: `((2 k - 1)^2, h)`, a row for each offset between query and key, counted in steps of `dilation`:
            `(y_i - y_j + k - 1) * (2 k - 1) + x_i - x_j + k - 1`, as in Swin's table.
        kernel_size: odd side k of a neighborhood, in cells.
        dilation: step between two neighbours, in cells.

    Raises:
        VitrailError: if the map has fewer than `kernel_size * dilation` rows or columns.

    Example:
        >>> cells = torch.zeros(1, 5, 6, 2, 4)
        >>> neighborhood_map(cells, cells, torch.zeros(25, 2), kernel_size=3, dilation=1).shape
        torch.Size([1, 5, 6, 2, 9])
    """
    height, width = q.shape[1:3]
    offsets = _offsets(height, width, kernel_size, dilation, q.device)
    scores = (q * q.shape[-1] ** -0.5)[..., None, :] @ _gather(k, kernel_size, dilation).mT  # (B, H, W, h, 1, kk)
    return (scores[..., 0, :] + bias[offsets].mT).softmax(dim=-1)


def attend(q: HeadMap, k: HeadMap, v: HeadMap, bias: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """Mix the values of each cell's neighbours by the attention probabilities: `(B, H, W, h, d)`."""
    maps = neighborhood_map(q, k, bias, kernel_size, dilation)
    return (maps[..., None, :] @ _gather(v, kernel_size, dilation))[..., 0, :]


def _gather(x: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """Give each cell the keys or values of its neighbours, `(B, H, W, h, kk, d)`."""
    rows, columns = (neighbours(length, kernel_size, dilation, x.device) for length in x.shape[1:3])
    near = x[:, rows[:, None, :, None], columns[None, :, None, :]]  # (B, H, W, k, k, h, d)
    return near.flatten(3, 4).transpose(3, 4)


def _offsets(height: int, width: int, kernel_size: int, dilation: int, device: torch.device) -> Tensor:
    """Return the row of the bias table for each cell and each of its neighbours, `(H, W, kk)`."""
    down, right = (
        (torch.arange(length, device=device)[:, None] - neighbours(length, kernel_size, dilation, device)) // dilation
        + kernel_size
        - 1
        for length in (height, width)
    )
    return (down[:, None, :, None] * (2 * kernel_size - 1) + right[None, :, None, :]).flatten(2)
