"""Heads of text models: words by a tied table, sentence vectors, BERT's two pretraining heads."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from vitrail.parts.backbone import Features
from vitrail.shapes import Pooled


class TiedHead(nn.Module):
    """Scores of all words by the table of the embedding: `transform(x) E^T + b`.

    Args:
        transform: `(B, N, C) -> (B, N, C)` before the product; the identity in GPT-2.
        bias: number of words, if each has a bias; 0 for none.
    """

    def __init__(self, transform: nn.Module | None = None, bias: int = 0):
        super().__init__()
        self.transform = transform or nn.Identity()
        self.bias = nn.Parameter(torch.zeros(bias)) if bias else None

    def forward(self, features: Features, table: Tensor) -> Tensor:
        """Return logits `(B, N, V)`."""
        return linear(self.transform(features.tokens), table, self.bias)


class UntiedHead(nn.Module):
    """Scores of all words by a table of its own; that of the embedding is passed as to `TiedHead`, and not read.

    Args:
        dim: channels C.
        words: scores V.
        bias: whether each word has a bias.
    """

    def __init__(self, dim: int, words: int, bias: bool = False):
        super().__init__()
        self.linear = nn.Linear(dim, words, bias=bias)

    def forward(self, features: Features, table: Tensor) -> Tensor:
        """Return logits `(B, N, V)`."""
        return self.linear(features.tokens)


class WordTransform(nn.Sequential):
    """BERT's transform before the output embedding: linear layer, activation, norm.

    Args:
        dim: channels C of the tokens.
        out: channels of the word table.
        act: activation.
        eps: epsilon of the norm.
    """

    def __init__(self, dim: int, out: int, act: nn.Module, eps: float = 1e-12):
        super().__init__(nn.Linear(dim, out), act, nn.LayerNorm(out, eps=eps))


class FirstTokenPooler(nn.Module):
    """First token through a linear layer and tanh, then dropout: BERT's sentence vector for classification.

    Args:
        dim: channels C.
        dropout: rate of dropped channels while training.
    """

    def __init__(self, dim: int, dropout: float = 0.0):
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Features) -> Pooled:
        """Return `(B, C)`."""
        return self.dropout(self.linear(features.tokens[:, 0]).tanh())


class MeanOfSequence(nn.Module):
    """Mean over the tokens of each sequence, padding left out."""

    def forward(self, features: Features) -> Pooled:
        """Return `(B, C)`."""
        tokens, lengths = features.tokens, getattr(features.grid, "lengths", None)
        if lengths is None:
            return tokens.mean(dim=1)
        real = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]  # (B, N)
        return tokens.masked_fill(~real[..., None], 0.0).sum(dim=1) / lengths[:, None].to(tokens.dtype)


class SentenceVector(nn.Module):
    """Mean of the tokens, divided by its length: vectors whose products are cosines.

    "Sentence-BERT", section 3.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = MeanOfSequence()

    def forward(self, features: Features) -> Pooled:
        """Return unit vectors `(B, C)`."""
        return normalize(self.pool(features), dim=-1)


class PretrainingLogits(NamedTuple):
    """Logits of BERT's two pretraining tasks.

    Args:
        words: `(B, N, V)`, masked-language model.
        next: `(B, 2)`, next-sentence prediction: class 0 if the second sentence follows the first.
    """

    words: Tensor
    next: Tensor


class PretrainingHead(nn.Module):
    """BERT's two heads: the masked word at each token, and whether the second sentence follows the first.

    "BERT", section 3.1.

    Args:
        words: `(features, table) -> (B, N, V)`.
        next: `Features -> (B, 2)`.
    """

    def __init__(self, words: nn.Module, next: nn.Module):
        super().__init__()
        self.words, self.next = words, next

    def forward(self, features: Features, table: Tensor) -> PretrainingLogits:
        """Return both logits."""
        return PretrainingLogits(self.words(features, table), self.next(features))
