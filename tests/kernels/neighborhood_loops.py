"""Neighborhood attention from its definition in words, cell by cell: no window arithmetic to get wrong."""

import torch
from torch import Tensor


def nearest(cell: int, length: int, kernel_size: int, dilation: int) -> list[int]:
    """Return the k cells nearest to a cell among those that are whole steps of the dilation away, in order."""
    group = [other for other in range(length) if (other - cell) % dilation == 0]
    return sorted(sorted(group, key=lambda other: abs(other - cell))[:kernel_size])


def neighborhood_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """Attend cell by cell; differentiable."""
    height, width, heads, d = q.shape[1:]
    table = bias.reshape(2 * kernel_size - 1, 2 * kernel_size - 1, heads)
    cells = []
    for y in range(height):
        for x in range(width):
            below, beside = nearest(y, height, kernel_size, dilation), nearest(x, width, kernel_size, dilation)
            rows, columns = zip(*[(a, b) for a in below for b in beside], strict=True)
            down = [(y - a) // dilation + kernel_size - 1 for a in rows]
            right = [(x - b) // dilation + kernel_size - 1 for b in columns]
            scores = (q[:, None, y, x] * k[:, rows, columns]).sum(-1) / d**0.5 + table[down, right]  # (B, kk, h)
            weights = scores.exp() / scores.exp().sum(1, keepdim=True)
            cells.append((weights[..., None] * v[:, rows, columns]).sum(1))  # (B, h, d)
    return torch.stack(cells, 1).reshape(q.shape)
