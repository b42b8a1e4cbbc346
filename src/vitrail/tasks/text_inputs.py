"""Texts as model inputs: token ids padded to one length, their layout, and the vocabulary that makes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from vitrail.errors import VitrailError
from vitrail.layouts import TokenSequence
from vitrail.parts.model import Model
from vitrail.text.reading import read_vocabulary
from vitrail.text.vocabulary import EncodedTexts, Vocabulary

LONGEST = 512
"""Most tokens of a text if neither the model nor the user has a limit."""


class TextBatch(NamedTuple):
    """Token ids `(B, N)` padded on the right, lengths `(B,)`, class numbers `(B,)`, and sample numbers `(B,)`."""

    ids: Tensor
    lengths: Tensor
    labels: Tensor
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def weight(self) -> float:
        """Number of texts."""
        return float(len(self.ids))

    @property
    def layout(self) -> TokenSequence:
        """Layout of the ids."""
        return padded_layout(self.ids, self.lengths)

    def to(self, device: torch.device) -> Self:
        """Move the tensors that the model reads."""
        return self._replace(**{key: getattr(self, key).to(device) for key in ("ids", "lengths", "labels")})

    def split(self, count: int) -> list[tuple[float, Self]]:
        """Cut into at most `count` micro-batches, none empty, each with its share of the texts."""
        parts = zip(*(value.tensor_split(count) for value in self), strict=True)
        return [(len(part[0]) / len(self.ids), type(self)(*part)) for part in parts if len(part[0])]

    def placeholder(self) -> Self:
        """Return one text of one token, which replaces an empty batch."""
        zero = self.labels.new_zeros(1)
        return type(self)(self.ids.new_zeros(1, 1), zero + 1, zero, self.index.new_zeros(1))


def padded_layout(ids: Tensor, lengths: Tensor) -> TokenSequence:
    """Return the layout of a padded batch; without `lengths` if no sequence is padded.

    Example:
        >>> padded_layout(torch.zeros(2, 3), torch.tensor([3, 1])).lengths.tolist()
        [3, 1]
    """
    full = ids.device.type == "cpu" and bool((lengths == ids.shape[1]).all())
    return TokenSequence(ids.shape[1], lengths=None if full else lengths)


def pad_ids(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return `(B, N)` ids padded on the right with 0, and lengths; a text without a token gets one 0.

    Example:
        >>> pad_ids([[5, 6], []])[0].tolist()
        [[5, 6], [0, 0]]
    """
    lengths = torch.tensor([max(len(text), 1) for text in texts], dtype=torch.long)
    ids = np.zeros((len(texts), int(lengths.max()) if len(texts) else 1), dtype=np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
    return torch.from_numpy(ids), lengths


def most_tokens(config: object, wanted: int | None = None) -> int:
    """Return the most tokens of a text: the wanted number, else the number of positions of the model, up to `LONGEST`.

    Raises:
        VitrailError: the model has positions for fewer.

    Example:
        >>> from types import SimpleNamespace
        >>> most_tokens(SimpleNamespace(max_length=64)), most_tokens(SimpleNamespace(max_length=64), 16)
        (64, 16)
    """
    positions = getattr(config, "max_length", None)
    if wanted is not None and positions is not None and wanted > positions:
        raise VitrailError(f"max_length is {wanted}, and the model has positions for {positions}. Use at most that.")
    return wanted or min(positions or LONGEST, LONGEST)


def vocabulary_of(weights: str | None, tokenizer: str | None = None) -> Vocabulary | None:
    """Return the vocabulary of a run: that of the given file, else that of the weights' folder; None without both.

    Raises:
        VitrailError: there are weights but no vocabulary.
    """
    if tokenizer is not None:
        return read_vocabulary(tokenizer)
    if weights is None:
        return None
    place = Path(weights)
    folder = place if place.is_dir() else place.parent
    try:
        return read_vocabulary(folder)
    except VitrailError as error:
        raise VitrailError(
            f"There is no vocabulary beside the weights {weights}, and their token ids mean nothing without it.\n"
            "Give it: --tokenizer tokenizer.json"
        ) from error


def need_vocabulary(model: Model) -> Vocabulary:
    """Return the vocabulary of a model.

    Raises:
        VitrailError: it has none.

    Example:
        >>> from types import SimpleNamespace
        >>> from vitrail.text.learning import learn_characters
        >>> len(need_vocabulary(SimpleNamespace(inputs=learn_characters("ab"), variant="gpt2"))) > 2
        True
    """
    if not isinstance(getattr(model, "inputs", None), Vocabulary):
        raise VitrailError(
            f"{model.variant or 'The model'} has no vocabulary, so no text can be turned into token ids.\n"
            "Use a model folder of vitrail train, or set model.inputs = vitrail.text.reading.read_vocabulary(...)."
        )
    return model.inputs


def check_vocabulary(vocabulary: Vocabulary, model: Model) -> None:
    """Check that a model has a row for every token.

    Example:
        >>> from types import SimpleNamespace
        >>> from vitrail.text.learning import learn_characters
        >>> check_vocabulary(learn_characters("ab"), SimpleNamespace(config=SimpleNamespace(vocab_size=300))) is None
        True
    """
    rows = model.config.vocab_size
    if len(vocabulary) > rows:
        raise VitrailError(
            f"The vocabulary has {len(vocabulary):,} tokens, and {model.variant} a table of {rows:,} rows.\n"
            f"Take the vocabulary of the weights, or a table that is large enough: --set vocab_size={len(vocabulary)}."
        )


def encode_texts(vocabulary: Vocabulary, texts: Sequence[str], longest: int) -> EncodedTexts:
    """Return token ids of texts, cut to `longest` tokens, and the number of tokens that were cut.

    Example:
        >>> from vitrail.text.learning import learn_characters
        >>> found = encode_texts(learn_characters("ab"), ["abab"], longest=3)
        >>> len(found.ids[0]), found.truncated
        (3, (1,))
    """
    return vocabulary.encode(texts, max_length=longest)
