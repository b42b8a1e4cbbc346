"""The best continuations of texts: the best words of each row, then the best of the rows of a text."""

import torch
from torch import Tensor

Continuations = list[list[tuple[float, int, int]]]
"""(total, word, row) of the continuations of each text, the best first; rows are counted within the text."""


def best_words(scores: Tensor, sums: list[float], counts: list[int], best: int) -> Continuations:
    """Return the continuations with the highest totals, `sums[row] + scores[row, word]`, ties by (word, row).

    NaN and -inf are no candidates. Totals are in fp64.

    Args:
        scores: log-probabilities of the next word, `(R, V)`; the rows of a text come one after the other.
        sums: log-probability of each row so far.
        counts: rows of each text.
        best: continuations of each text.

    Example:
        >>> best_words(torch.tensor([[-1.0, -3.0], [-2.0, -3.0]]), [-1.0, 0.0], [2], 3)
        [[(-2.0, 0, 0), (-2.0, 0, 1), (-3.0, 1, 1)]]
    """
    found, first, words = [], 0, _best_of_rows(scores, best)
    for count in counts:
        every = [(sums[first + row] + score, word, row) for row in range(count) for score, word in words[first + row]]
        found.append(sorted(every, key=lambda one: (-one[0], one[1], one[2]))[:best])
        first += count
    return found


def _best_of_rows(scores: Tensor, best: int) -> list[list[tuple[float, int]]]:
    """Return the best (score, word) of each row, which the best of all rows are among.

    `topk` chooses any of several equal scores, so every word as good as the last is looked at.
    """
    found: list[list[tuple[float, int]]] = [[] for _ in scores]
    if not scores.numel():
        return found
    clean = torch.where(scores.isnan(), -torch.inf, scores)
    least = clean.topk(min(best, clean.shape[1]), dim=1).values[:, -1:]
    rows, words = ((clean >= least) & (clean > -torch.inf)).nonzero(as_tuple=True)
    for row, word, score in zip(rows.tolist(), words.tolist(), clean[rows, words].tolist(), strict=True):
        found[row].append((score, word))
    return [sorted(each, key=lambda one: (-one[0], one[1]))[:best] for each in found]
