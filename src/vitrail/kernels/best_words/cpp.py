"""The best words of each row in C++: one pass over the scores."""

from torch import Tensor, float32

from vitrail.kernels.best_words.reference import Words
from vitrail.kernels.tracing import is_tracing
from vitrail.native import decode
from vitrail.native.build import missing


def unsupported_reason(scores: Tensor, count: int) -> str | None:
    """Return why native code cannot take these scores, or None."""
    if scores.device.type != "cpu" or scores.dtype != float32:
        return f"needs fp32 on a CPU, got {scores.dtype} on {scores.device}"
    if scores.shape[1] > 1 and scores.stride(1) != 1:
        return "needs rows without gaps"
    if is_tracing(scores):
        return "not traceable: torch.compile, export or a functorch transform is active"
    return missing("decode")


def best_words(scores: Tensor, count: int) -> Words:
    """Return the words; see the reference."""
    values, words = decode.best_words(scores.detach(), min(count, scores.shape[1]))
    rows = zip(values.tolist(), words.tolist(), strict=True)
    return [[one for one in zip(*row, strict=True) if one[0] > float("-inf")] for row in rows]
