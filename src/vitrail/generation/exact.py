"""Exact search: best first over all texts, with the bound of the length penalty, on short texts."""

import heapq
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from vitrail.generation.beam import BeamOptions, BeamResult, Hypothesis
from vitrail.generation.length_penalty import score, upper_bound

NextToken = Callable[[Sequence[tuple[int, ...]]], Tensor]
LIMIT = 10_000
"""Prefixes that a search expands at most."""


@torch.no_grad()
def exact_search(
    next_token: NextToken,
    start: BeamResult,
    options: BeamOptions,
    limit: int = LIMIT,
    progress: Callable[[int], None] = lambda expanded: None,
) -> BeamResult:
    """Go on from a beam search until no better text exists at all, or `limit` prefixes were expanded.

    Branch and bound: the unfinished prefix with the highest upper bound is expanded first; a prefix whose bound is not
    above the best finished score is never expanded. If the heap runs empty of better prefixes, the best text is proved
    (`result.exact` and `result.certified`); at the limit it is the best found so far (neither), and the bound is
    that of the remaining prefixes.

    Args:
        next_token: log-probabilities `(1, V)` of the token after a prefix of new tokens, without a cache.
        start: result of `beam_search`, whose best score prunes.
        options: numbers of the search.
        limit: prefixes to expand at most.
        progress: receives the number of prefixes expanded so far, after each.
    """
    o, best = options, start.hypotheses[0]
    heap: list[tuple[float, tuple[int, ...], float]] = [(-upper_bound(o.penalty, 0.0, 0, o.max_new), (), 0.0)]
    expanded = 0
    while heap and -heap[0][0] > best.score and expanded < limit:
        _, tokens, log_prob = heapq.heappop(heap)
        expanded += 1
        sums = log_prob + next_token([tokens])[0].double()
        progress(expanded)
        if len(tokens) + 1 == o.max_new:
            best = _better(best, sums, tokens, o, range(len(sums)))
            continue
        best = _better(best, sums, tokens, o, o.stop)
        bounds = sums / max(o.penalty.divisor(n) for n in (len(tokens) + 2, o.max_new))
        for token in (bounds > best.score).nonzero()[:, 0].tolist():
            if token not in o.stop:
                total = float(sums[token])
                bound = upper_bound(o.penalty, total, len(tokens) + 1, o.max_new)
                heapq.heappush(heap, (-bound, (*tokens, token), total))
    others = [one for one in start.hypotheses if one.tokens != best.tokens]
    bound = -heap[0][0] if heap else -torch.inf
    return BeamResult((best, *others)[: o.beam], bound, exact=best.score >= bound)


def _better(best: Hypothesis, sums: Tensor, tokens: tuple[int, ...], o: BeamOptions, ends: Iterable[int]) -> Hypothesis:
    """Return the best of a hypothesis and those that end now."""
    for token in ends:
        log_prob = float(sums[token])
        found = Hypothesis((*tokens, token), log_prob, score(o.penalty, log_prob, len(tokens) + 1))
        best = min(best, found, key=lambda one: (-one.score, one.tokens))
    return best
