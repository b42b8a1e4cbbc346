"""The best words of each row: `topk` with ties broken by the word."""

import torch
from torch import Tensor

Words = list[list[tuple[float, int]]]
"""(score, word) of each row, the best first."""


def best_words(scores: Tensor, count: int) -> Words:
    """Return the best `count` words of each row `(R, V)`: the highest scores, of equal ones the lowest words.

    `topk` chooses any of several equal scores, so every word as good as the last is looked at. NaN and -inf are no
    candidates.

    Example:
        >>> best_words(torch.tensor([[1.0, 3.0, 3.0, 3.0]]), 2)
        [[(3.0, 1), (3.0, 2)]]
    """
    found: Words = [[] for _ in scores]
    if not scores.numel():
        return found
    clean = torch.where(scores.isnan(), -torch.inf, scores)
    least = clean.topk(min(count, clean.shape[1]), dim=1).values[:, -1:]
    rows, words = ((clean >= least) & (clean > -torch.inf)).nonzero(as_tuple=True)
    for row, word, score in zip(rows.tolist(), words.tolist(), clean[rows, words].tolist(), strict=True):
        found[row].append((score, word))
    return [sorted(each, key=lambda one: (-one[0], one[1]))[:count] for each in found]
