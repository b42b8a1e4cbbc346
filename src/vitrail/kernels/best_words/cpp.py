"""The best continuations of texts in C++: one pass over the scores."""

from math import inf

from torch import Tensor, float32

from vitrail.kernels.best_words.reference import Continuations
from vitrail.kernels.tracing import is_tracing
from vitrail.native import decode
from vitrail.native.build import missing


def unsupported_reason(scores: Tensor, sums: list[float], counts: list[int], best: int) -> str | None:
    """Return why native code cannot take these scores, or None."""
    if scores.device.type != "cpu" or scores.dtype != float32:
        return f"needs fp32 on a CPU, got {scores.dtype} on {scores.device}"
    if scores.shape[1] > 1 and scores.stride(1) != 1:
        return "needs rows without gaps"
    if best < 1:
        return "needs at least one continuation"
    if is_tracing(scores):
        return "not traceable: torch.compile, export or a functorch transform is active"
    return missing("decode")


def best_words(scores: Tensor, sums: list[float], counts: list[int], best: int) -> Continuations:
    """Return the continuations; see the reference."""
    found = (each.tolist() for each in decode.best_words(scores.detach(), sums, counts, best))
    texts = [list(zip(*text, strict=True)) for text in zip(*found, strict=True)]
    return [text if text[-1][0] > -inf else [one for one in text if one[0] > -inf] for text in texts]
