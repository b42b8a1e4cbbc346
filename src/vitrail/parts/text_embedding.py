"""From token ids to tokens: a table of words, then positions, segments, norm and dropout."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from vitrail.errors import VitrailError
from vitrail.layouts import TokenSequence
from vitrail.shapes import TokenIds, Tokens


class TextEmbedding(nn.Module):
    """One learned vector a word, then steps `(x, layout) -> (x, layout)` in order.

    x_i = scale * E[id_i]

    Args:
        vocab_size: words of the vocabulary.
        dim: channels C.
        steps: positions, segments, norm, dropout.
        scale: factor of the vectors, sqrt(C) in "Attention Is All You Need", section 3.4.

    Raises:
        VitrailError: (in `forward`) if an id is outside the vocabulary.

    Example:
        >>> embedding = TextEmbedding(10, 8)
        >>> x, layout = embedding(torch.tensor([[3, 9, 0]]), TokenSequence(3))
        >>> x.shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, vocab_size: int, dim: int, steps: Sequence[nn.Module] = (), scale: float = 1.0):
        super().__init__()
        self.words = nn.Embedding(vocab_size, dim)
        self.steps = nn.ModuleList(steps)
        self.scale = scale

    def forward(self, ids: TokenIds, layout: TokenSequence) -> tuple[Tensor, TokenSequence]:
        """Look the words up and take each step."""
        self._check(ids)
        x = self.words(ids)
        x = x if self.scale == 1.0 else x * self.scale
        for step in self.steps:
            x, layout = step(x, layout)
        return x, layout

    def _check(self, ids: Tensor) -> None:
        """Refuse ids outside the vocabulary; on an accelerator its kernel does, since reading ids would wait for it."""
        if ids.device.type != "cpu" or torch.compiler.is_compiling() or not ids.numel():
            return
        low, high = (int(bound) for bound in torch.aminmax(ids))
        if low < 0 or high >= self.words.num_embeddings:
            wrong = low if low < 0 else high
            raise VitrailError(f"Token id {wrong} is outside the vocabulary of {self.words.num_embeddings} words.")


class SegmentEmbedding(nn.Module):
    """A learned vector for each sentence of the input, added to its tokens: `x_i + S[segment_i]`.

    "BERT", section 3. Without `layout.segments` all tokens belong to sentence 0.

    Args:
        segments: largest number of sentences.
        dim: channels C.
    """

    def __init__(self, segments: int, dim: int):
        super().__init__()
        self.table = nn.Embedding(segments, dim)

    def forward(self, x: Tokens, layout: TokenSequence) -> tuple[Tensor, TokenSequence]:
        """Add each token's segment."""
        if layout.segments is None:
            return x + self.table.weight[0], layout
        return x + self.table(layout.segments), layout


class EachToken(nn.Module):
    """A norm or a projection of each token as a step of an embedding: `(x, layout) -> (module(x), layout)`.

    Args:
        module: `x -> x`.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x: Tokens, layout: TokenSequence) -> tuple[Tensor, TokenSequence]:
        """Apply the module."""
        return self.module(x), layout


class TokenDropout(nn.Module):
    """Dropout of entries as a step of an embedding.

    Args:
        rate: probability of dropping an entry.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tokens, layout: TokenSequence) -> tuple[Tensor, TokenSequence]:
        """Drop entries while training."""
        return dropout(x, self.rate, self.training), layout
