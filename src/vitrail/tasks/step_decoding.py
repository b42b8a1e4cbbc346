"""Incremental decoding by an exported step program: the cache is kept between its runs."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vitrail.generation.decoding import check_capacity, pad_batch
from vitrail.parts.model import Model
from vitrail.tasks.step_cache import CacheEntry

RunTensors = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
"""Input tensors of a program to its output tensors."""

CHUNK = 64
"""Tokens of a prompt that are read at once: scores of all of them are computed, and only the last are used."""


class FileDecoding:
    """A batch of texts that grow token by token, whose cache is handed to each run of a program.

    Args:
        run: the program.
        entries: of its cache.
        rows: texts R.
    """

    def __init__(self, run: RunTensors, entries: Sequence[CacheEntry], rows: int):
        self.rows, self.device = rows, torch.device("cpu")
        self._run, self._past = run, 0
        self._cache = [each.empty(rows) for each in entries]

    def _before(self) -> tuple[Tensor, ...]:
        """Return the inputs between the new tokens and the cache."""
        return ()

    def feed(self, ids: Tensor) -> Tensor:
        """Append tokens and return the log-probabilities of the next."""
        logits = torch.empty(0)
        for piece in ids.split(CHUNK, dim=1):
            logits, *self._cache = self._run((piece, *self._before(), *self._cache))
            self._past += piece.shape[1]
        return logits[:, -1].float().log_softmax(dim=-1)

    def select(self, rows: Tensor) -> None:
        """Keep the given rows of the cache."""
        self._cache = [each.index_select(0, rows) for each in self._cache]
        self.rows = len(rows)


class FileLanguageDecoding(FileDecoding):
    """Decoding of an exported language model.

    Args:
        model: the model that the file describes.
        run: the program.
        entries: of its cache.
        rows: texts R.
        capacity: tokens that a text may have, prompt included.
        counted: whether the program is told the number of earlier tokens.

    Raises:
        VitrailError: if the model has positions for fewer tokens.
    """

    def __init__(
        self, model: Model, run: RunTensors, entries: Sequence[CacheEntry], rows: int, capacity: int, counted: bool
    ):
        check_capacity(model, capacity)
        super().__init__(run, entries, rows)
        self._counted = counted

    def _before(self) -> tuple[Tensor, ...]:
        return (torch.full((self.rows, 1), self._past),) if self._counted else ()


class FileTranslationDecoding(FileDecoding):
    """Decoding of an exported translation model; its first run reads the sources.

    Args:
        run: the program.
        entries: of its cache.
        sources: token ids of each source text.
    """

    def __init__(self, run: RunTensors, entries: Sequence[CacheEntry], sources: Sequence[Sequence[int]]):
        super().__init__(run, entries, len(sources))
        self._sources, self._lengths = pad_batch(sources)

    def _before(self) -> tuple[Tensor, ...]:
        sources, self._sources = self._sources, self._sources[:, :0]
        return sources, self._lengths

    def select(self, rows: Tensor) -> None:
        """Keep the given rows of the cache and of the sources."""
        super().select(rows)
        self._sources, self._lengths = self._sources[rows], self._lengths[rows]
