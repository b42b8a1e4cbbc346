"""Exact k-means of weighted numbers by dynamic programming, level by level of a divide and conquer."""

import numpy as np
import torch
from torch import Tensor

from vitrail.errors import VitrailError


def kmeans(values: Tensor, weights: Tensor, k: int) -> Tensor:
    """Return the k centers that minimise the weighted sum of squared distances; the optimum, without seeds.

    D_c(j) = min over i of D_{c-1}(i - 1) + cost(i, j)

    with cost(i, j) the weighted squared distances of the ascending values i to j to their mean. The best i never
    decreases with j, so each of the k rows takes n log n steps.

    "Ckmeans.1d.dp: Optimal k-means Clustering in One Dimension by Dynamic Programming", Wang and Song, 2011, with the
    divide and conquer of its version 4.

    Args:
        values: `(n,)`, in any order.
        weights: `(n,)`, from 0 up.
        k: number of centers.

    Returns:
        Ascending centers `(k,)` in fp64; with fewer different values the last one is repeated.

    Raises:
        VitrailError: there are no values, or k is below 1, or a value or weight is not finite or negative.

    Example:
        >>> kmeans(torch.tensor([1.0, 9.0, 2.0, 8.0]), torch.tensor([1.0, 1.0, 3.0, 1.0]), k=2).tolist()
        [1.75, 8.5]
    """
    x, w = (given.numpy() for given in ascending(values, weights, k))
    sums = [np.concatenate([[0.0], np.cumsum(term)]) for term in (w, w * x, w * x * x)]
    n = len(x)
    before, starts = _cost(sums, np.zeros(n, np.int64), np.arange(n)), [np.zeros(n, np.int64)]
    for _ in range(1, k):
        before, start = _row(sums, before)
        starts.append(start)
    centers, end = [], n - 1
    for start in reversed(starts):
        if end < 0:
            break
        begin = int(start[end])
        weight = sums[0][end + 1] - sums[0][begin]
        mean = (sums[1][end + 1] - sums[1][begin]) / weight if weight > 0 else x[begin : end + 1].mean()
        centers, end = [float(mean), *centers], begin - 1
    return torch.tensor(centers + [centers[-1]] * (k - len(centers)), dtype=torch.float64)


def ascending(values: Tensor, weights: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return values in ascending order with their weights, on the CPU in fp64, after checking them."""
    x, w = values.detach().double().cpu(), weights.detach().double().cpu()
    if x.ndim != 1 or x.shape != w.shape or not len(x) or k < 1:
        raise VitrailError(f"k-means needs values and weights (n,) and k from 1 up, got {x.shape}, {w.shape}, {k}.")
    if not bool(x.isfinite().all() & w.isfinite().all() & (w >= 0).all()):
        raise VitrailError("k-means needs finite values, and finite weights from 0 up.")
    order = x.argsort(stable=True)
    return x[order].contiguous(), w[order].contiguous()


def _cost(sums: list[np.ndarray], i: np.ndarray, j: np.ndarray) -> np.ndarray:
    weight, first, second = (prefix[j + 1] - prefix[i] for prefix in sums)
    spread = second - first * first / np.where(weight > 0, weight, 1.0)
    return np.where(weight > 0, np.maximum(spread, 0.0), 0.0)


def _row(sums: list[np.ndarray], before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the costs of one more cluster, and where the last one starts."""
    n = len(before)
    earlier = np.concatenate([[0.0], before])  # D(i - 1)
    cost, start = np.empty(n), np.empty(n, np.int64)
    first, last, low, high = (np.array([value]) for value in (0, n - 1, 0, n - 1))
    while len(first):
        j = (first + last) // 2
        counts = np.minimum(high, j) - low + 1
        offsets = np.concatenate([[0], np.cumsum(counts)[:-1]])
        i = np.arange(counts.sum()) - np.repeat(offsets - low, counts)
        value = earlier[i] + _cost(sums, i, np.repeat(j, counts))
        cost[j] = np.minimum.reduceat(value, offsets)
        hits = np.flatnonzero(value == np.repeat(cost[j], counts))
        owner = np.repeat(np.arange(len(j)), counts)[hits]
        chosen = i[hits[np.concatenate([[True], owner[1:] != owner[:-1]])]]
        start[j] = chosen
        first, last = np.concatenate([first, j + 1]), np.concatenate([j - 1, last])
        low, high = np.concatenate([low, chosen]), np.concatenate([chosen, high])
        order = np.argsort(first, kind="stable")
        first, last, low, high = (bound[order][(last >= first)[order]] for bound in (first, last, low, high))
    return cost, start
