"""Loss of a language model: per token, per byte, per word."""

from collections.abc import Callable
from math import exp, inf, log
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vitrail.data.text_streams import TextStream
from vitrail.data.token_windows import IGNORED, WindowBatch
from vitrail.shapes import TokenLogits


class TextSize(NamedTuple):
    """Size of an evaluated text: bytes in UTF-8, and words with an end for each line."""

    bytes: int
    words: int

    @classmethod
    def of(cls, stream: TextStream) -> "TextSize":
        """Measure a text."""
        return cls(stream.size, stream.words)


def language_loss(logits: TokenLogits, targets: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of the targets, in fp32; `IGNORED` targets do not count.

    -1/T sum_t log p(x_t | x_<t)

    Args:
        logits: `(B, N, V)`.
        targets: `(B, N)`.

    Example:
        >>> import torch
        >>> round(float(language_loss(torch.zeros(1, 2, 4), torch.tensor([[1, 3]]))), 4)
        1.3863
    """
    count = (targets != IGNORED).sum().clamp(min=1)
    total = cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / count


class LanguageMetric:
    """Loss in nats per token over a whole text, and perplexity, bits per byte, perplexity per word from the same sum.

    Perplexity per token depends on the vocabulary; bits per byte and perplexity per word do not, so models with
    different vocabularies can be compared by them.

    Args:
        size: size of the text.
        device: device of the sums.

    Attributes:
        sums: predicted tokens, sum of their losses; float64.
    """

    def __init__(self, size: TextSize, device: torch.device | str = "cpu"):
        self.size, self.sums = size, torch.zeros(2, dtype=torch.float64, device=device)

    def update(self, outputs: TokenLogits, batch: WindowBatch) -> None:
        """Add a batch."""
        count = batch.weight
        loss = language_loss(outputs, batch.targets).double() * count
        self.sums += torch.stack([torch.tensor(count, dtype=torch.float64, device=loss.device), loss])

    def sync(self, all_reduce_sum: Callable[[Tensor], Tensor]) -> None:
        """All-reduce the sums."""
        self.sums = all_reduce_sum(self.sums)

    def compute(self) -> dict[str, float]:
        """Return the loss and the figures made of it."""
        count, total = self.sums.tolist()
        return figures(total, int(count), self.size)


def figures(total: float, tokens: int, size: TextSize) -> dict[str, float]:
    """Return loss per token, perplexity per token and word, and bits per byte of a sum of losses in nats.

    Example:
        >>> found = figures(total=20.0, tokens=10, size=TextSize(bytes=40, words=5))
        >>> found["nats"], round(found["bits_per_byte"], 3), round(found["word_perplexity"], 1)
        (2.0, 0.721, 54.6)
    """
    return {
        "loss": total / tokens,
        "nats": total / tokens,
        "perplexity": _exp(total / tokens),
        "bits_per_byte": total / log(2) / max(size.bytes, 1),
        "word_perplexity": _exp(total / max(size.words, 1)),
    }


def _exp(value: float) -> float:
    return exp(value) if value < 700 else inf
