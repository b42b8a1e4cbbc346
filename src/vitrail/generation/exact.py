"""Exact decoding of short texts: best-first branch and bound, with an upper bound from the length penalty."""

import heapq
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from vitrail.generation.beam import BeamOptions, BeamResult, Hypothesis
from vitrail.generation.length_penalty import score, upper_bound

NextToken = Callable[[Sequence[tuple[int, ...]]], Tensor]
"""Log-probabilities `(n, V)` of the next token after each of n prefixes."""
LIMIT = 10_000
"""Maximum number of expanded prefixes."""


@torch.no_grad()
def exact_search(
    next_token: NextToken,
    start: BeamResult,
    options: BeamOptions,
    limit: int = LIMIT,
    progress: Callable[[int], None] = lambda expanded: None,
) -> BeamResult:
    """Continue a beam search until its best hypothesis is proved optimal, or `limit` prefixes are expanded.

    Branch and bound: the unfinished prefix with the highest upper bound is expanded first; prefixes whose bound is not
    above the best finished score are pruned. If no prefix remains, the best hypothesis is optimal (`result.exact` and
    `result.certified`); at the limit it is the best found so far (neither), and `result.bound` is that of the
    remaining prefixes.

    Args:
        next_token: log-probabilities `(1, V)` of the token after a prefix of new tokens, without a KV cache.
        start: result of `beam_search`; its best score is the initial lower bound.
        options: options of the search.
        limit: maximum number of expanded prefixes.
        progress: callback with the number of expanded prefixes, after each.
    """
    o, best = options, start.hypotheses[0]
    heap: list[tuple[float, tuple[int, ...], float]] = [(-upper_bound(o.penalty, 0.0, 0, o.max_new), (), 0.0)]
    expanded = 0
    while heap and -heap[0][0] > best.score and expanded < limit:
        _, prefix, prefix_log_prob = heapq.heappop(heap)
        expanded += 1
        log_probs = prefix_log_prob + next_token([prefix])[0].double()
        progress(expanded)
        if len(prefix) + 1 == o.max_new:
            best = _best_finished(best, log_probs, prefix, o, range(len(log_probs)))
            continue
        best = _best_finished(best, log_probs, prefix, o, o.stop)
        bounds = log_probs / max(o.penalty.divisor(n) for n in (len(prefix) + 2, o.max_new))
        for token in (bounds > best.score).nonzero()[:, 0].tolist():
            if token not in o.stop:
                log_prob = float(log_probs[token])
                bound = upper_bound(o.penalty, log_prob, len(prefix) + 1, o.max_new)
                heapq.heappush(heap, (-bound, (*prefix, token), log_prob))
    others = [each for each in start.hypotheses if each.tokens != best.tokens]
    bound = -heap[0][0] if heap else -torch.inf
    return BeamResult((best, *others)[: o.beam], bound, exact=best.score >= bound)


def _best_finished(
    best: Hypothesis, log_probs: Tensor, prefix: tuple[int, ...], o: BeamOptions, last: Iterable[int]
) -> Hypothesis:
    """Return the best of a hypothesis and of a prefix finished by each of the `last` tokens; ties go to lower ids."""
    for token in last:
        log_prob = float(log_probs[token])
        finished = Hypothesis((*prefix, token), log_prob, score(o.penalty, log_prob, len(prefix) + 1))
        best = min(best, finished, key=lambda each: (-each.score, each.tokens))
    return best
