"""Incremental decoding of any model: tokens in, scores of the next token out, with a key-value cache inside."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from vitrail.errors import VitrailError
from vitrail.layouts import TokenSequence
from vitrail.parts.backbone import Features
from vitrail.parts.key_value_cache import KeyValueCache
from vitrail.parts.model import Model


class Decoding(Protocol):
    """A batch of texts that grow token by token."""

    rows: int
    device: torch.device

    def feed(self, ids: Tensor) -> Tensor:
        """Append tokens `(R, n)` and return the log-probabilities `(R, V)` of the token after them, in fp32."""
        ...

    def select(self, rows: Tensor) -> None:
        """Keep the given rows, in the given order; a row may be repeated."""
        ...


class LanguageDecoding:
    """Incremental decoding of a language model such as GPT-2.

    Args:
        model: the model, in evaluation mode.
        rows: texts R.
        capacity: tokens that a text may have, prompt included.

    Raises:
        VitrailError: if the model has positions for fewer tokens.
    """

    def __init__(self, model: Model, rows: int, capacity: int):
        check_capacity(model, capacity)
        self.rows, self.device = rows, model.table.device
        self._model, self._start, self._cache = model, 0, KeyValueCache(capacity)

    def feed(self, ids: Tensor) -> Tensor:
        """Append tokens and return the log-probabilities of the next."""
        layout = TokenSequence(ids.shape[1], start=self._start, cache=self._cache)
        tokens = self._model.features(ids, layout).tokens[:, -1:]  # only the last token needs its scores
        self._start += ids.shape[1]
        logits = self._model.head(Features(tokens, layout, ()), self._model.table)
        return logits[:, -1].float().log_softmax(dim=-1)

    def select(self, rows: Tensor) -> None:
        """Keep the given rows of the cache."""
        self._cache.select(rows)
        self.rows = len(rows)


def check_capacity(model: Model, capacity: int) -> None:
    """Check that a language model has positions for `capacity` tokens.

    Raises:
        VitrailError: it has fewer.
    """
    longest = getattr(model.config, "max_length", None)
    if longest is not None and capacity > longest:
        raise VitrailError(
            f"Prompt and new tokens are {capacity} tokens, and {model.variant} has positions for {longest}.\n"
            "Shorten the prompt, or ask for fewer new tokens."
        )


def language_decoding(model: Model, rows: int, capacity: int) -> Decoding:
    """Return the incremental decoding of a language model; an optimized model has its own.

    Args:
        model: the model, in evaluation mode.
        rows: texts R.
        capacity: tokens that a text may have, prompt included.

    Raises:
        VitrailError: the model has positions for fewer tokens.
    """
    own = getattr(model, "decoding", None)
    return LanguageDecoding(model, rows, capacity) if own is None else own(rows, capacity)


class TranslationDecoding:
    """Incremental decoding of an encoder-decoder; the source is encoded once.

    Args:
        model: the model, in evaluation mode.
        sources: token ids of each source text.
        capacity: tokens that a target may have, its start token included.
    """

    def __init__(self, model: Model, sources: Sequence[Sequence[int]], capacity: int):
        self.rows, self.device = len(sources), model.embedding.words.weight.device
        ids, lengths = pad_batch(sources, self.device)
        self._model, self._start, self._cache = model, 0, KeyValueCache(capacity)
        self._memory = model.encode(ids, TokenSequence(ids.shape[1], lengths=lengths))
        self._lengths = lengths

    def feed(self, ids: Tensor) -> Tensor:
        """Append target tokens and return the log-probabilities of the next."""
        layout = TokenSequence(ids.shape[1], start=self._start, memory=self._memory, cache=self._cache)
        self._start += ids.shape[1]
        logits = self._model.decode(ids, layout.replace(memory_lengths=self._lengths))
        return logits[:, -1].float().log_softmax(dim=-1)

    def select(self, rows: Tensor) -> None:
        """Keep the given rows of cache and memory."""
        self._cache.select(rows)
        self._memory, self._lengths = self._memory.index_select(0, rows), self._lengths.index_select(0, rows)
        self.rows = len(rows)


def translation_decoding(model: Model, sources: Sequence[Sequence[int]], capacity: int) -> Decoding:
    """Return the incremental decoding of an encoder-decoder; an optimized model has its own.

    Args:
        model: the model, in evaluation mode.
        sources: token ids of each source text.
        capacity: tokens that a target may have, its start token included.
    """
    own = getattr(model, "decoding", None)
    return TranslationDecoding(model, sources, capacity) if own is None else own(sources, capacity)


def pad_batch(texts: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Return `(B, N)` ids padded on the right with 0, and their lengths.

    Raises:
        VitrailError: if a text has no token.

    Example:
        >>> pad_batch([[5, 6], [7]])
        (tensor([[5, 6],
                [7, 0]]), tensor([2, 1]))
    """
    empty = [number for number, text in enumerate(texts) if not len(text)]
    if empty:
        raise VitrailError(f"Text {empty[0]} has no token; a model needs at least one, such as a start token.")
    lengths = torch.tensor([len(text) for text in texts])
    ids = torch.zeros(len(texts), int(lengths.max()), dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.as_tensor(text)
    return ids.to(device), lengths.to(device)
