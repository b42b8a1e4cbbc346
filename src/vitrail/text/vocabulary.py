"""A vocabulary: how text becomes token ids and ids become text, saved as one `tokenizer.json`."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, ClassVar

from vitrail.errors import DataError, VitrailError
from vitrail.inputs import ModelInputs

FILE = "tokenizer.json"
UNKNOWN = "tokens are not in the vocabulary"
"""Note about a text, after the number of tokens."""
_SURROGATE = re.compile(f"[{chr(0xD800)}-{chr(0xDFFF)}]")


@dataclass(frozen=True)
class EncodedTexts:
    """Token ids of several texts, and what was done to make them.

    Args:
        ids: token ids of each text, special tokens included; a text may have none.
        segments: sentence of each token, 0 or 1.
        truncated: tokens that were cut off each text.
        replaced: characters of each text that no encoding has (lone surrogates), each read as U+FFFD.
        unknown: number of tokens of each text outside the vocabulary.
    """

    ids: tuple[tuple[int, ...], ...]
    segments: tuple[tuple[int, ...], ...]
    truncated: tuple[int, ...]
    replaced: tuple[int, ...]
    unknown: tuple[int, ...]

    def __str__(self) -> str:
        """Return one line about truncated texts, replaced characters and unknown tokens, or nothing."""
        cut, bad = sum(map(bool, self.truncated)), sum(self.replaced)
        lines = [f"{cut} of {len(self.ids)} texts were truncated, by {sum(self.truncated)} tokens"] if cut else []
        lines += [f"{bad} characters are not Unicode and were replaced"] if bad else []
        return "; ".join(lines + ([f"{sum(self.unknown)} {UNKNOWN}"] if any(self.unknown) else []))


class Vocabulary(ModelInputs):
    """A tokenizer as a value: its whole state is the text of a `tokenizer.json`.

    Truncation and padding that the file may ask for are left out: `encode` truncates if told to, and says so.

    Args:
        text: content of a `tokenizer.json`, as Hugging Face writes it.

    Raises:
        DataError: if the text is no tokenizer.
        VitrailError: if `tokenizers` is not installed.
    """

    file: ClassVar[str] = FILE

    def __init__(self, text: str):
        tokenizer: Any = tokenizers().Tokenizer
        try:
            self._tokenizer = tokenizer.from_str(text)
        except Exception as error:
            raise DataError(f"This is no {FILE}: {str(error).partition(chr(10))[0]}.") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def to_json(self) -> str:
        """Return the content of a `tokenizer.json`, the same for equal vocabularies."""
        return json.dumps(json.loads(self._tokenizer.to_str()), ensure_ascii=False, indent=1) + "\n"

    def to_text(self) -> str:
        """Return the content of `tokenizer.json`."""
        return self.to_json()

    @classmethod
    def from_text(cls, text: str) -> "Vocabulary":
        """Read the content of a `tokenizer.json`."""
        return cls(text)

    def facts(self) -> dict[str, str]:
        """Return the number of tokens for the model card."""
        return {"vocabulary": f"{len(self):,} tokens"}

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __reduce__(self) -> tuple[object, ...]:
        return Vocabulary, (self.to_json(),)

    @cached_property
    def unknown(self) -> int | None:
        """Id of the token of text outside the vocabulary; None without such a token."""
        model = json.loads(self._tokenizer.to_str())["model"]  # the library has no `unk_id` of a Unigram
        token = model.get("unk_token")
        return model.get("unk_id") if token is None else self._tokenizer.token_to_id(token)

    def has(self, token: str) -> bool:
        """Return whether it has a token."""
        return self._tokenizer.token_to_id(token) is not None

    def id_of(self, token: str) -> int:
        """Return the id of a token.

        Raises:
            VitrailError: if the vocabulary does not have it.
        """
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise VitrailError(f"The vocabulary of {len(self)} tokens has no {token!r}.")
        return number

    def encode(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        max_length: int | None = None,
        special: bool = True,
    ) -> EncodedTexts:
        """Turn texts into token ids.

        Args:
            texts: any strings; an empty one gives special tokens alone, or none.
            pairs: second sentence of each text, for models that take two.
            max_length: longer texts are cut to so many tokens, special tokens included; the result states how much.
            special: whether to add special tokens ([CLS], [SEP]), if the vocabulary defines any.
        """
        if isinstance(texts, str):
            raise VitrailError("encode takes a list of texts, got one string. Write [text].")
        clean, replaced = _clean_all(texts)
        first = self._tokenizer.encode_batch(clean, add_special_tokens=False)
        second = [None] * len(texts)
        if pairs is not None:
            clean, more = _clean_all(pairs)
            second = self._tokenizer.encode_batch(clean, add_special_tokens=False)
            replaced = tuple(a + b for a, b in zip(replaced, more, strict=True))
        added = self._tokenizer.num_special_tokens_to_add(pairs is not None) if special else 0
        whole = [len(a) + (len(b) if b else 0) + added for a, b in zip(first, second, strict=True)]
        if max_length is not None:
            self._tokenizer.enable_truncation(max_length)
        try:  # the library truncates and adds special tokens in one step, so a long text is read once
            found = [self._tokenizer.post_process(a, b, special) for a, b in zip(first, second, strict=True)]
        finally:
            self._tokenizer.no_truncation()
        cut = [before - len(one) for before, one in zip(whole, found, strict=True)]
        ids, segments = (tuple(tuple(getattr(one, key)) for one in found) for key in ("ids", "type_ids"))
        unknown = self.unknown
        missed = tuple(one.count(unknown) if unknown is not None else 0 for one in ids)
        return EncodedTexts(ids, segments, tuple(cut), tuple(replaced), missed)

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """Turn token ids into text; bytes that are no UTF-8 come out as U+FFFD.

        Args:
            ids: token ids.
            special: whether special tokens are written out.
        """
        return self._tokenizer.decode(list(ids), skip_special_tokens=not special)


def tokenizers() -> ModuleType:
    """Import the library `tokenizers`.

    Raises:
        VitrailError: if it is not installed.
    """
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise VitrailError("Text needs the library tokenizers: pip install tokenizers.") from error
    return tokenizers


def _clean_all(texts: Sequence[str]) -> tuple[list[str], tuple[int, ...]]:
    """Return texts without lone surrogates, and how many each had."""
    found = [clean(text) for text in texts]
    return [text for text, _ in found], tuple(count for _, count in found)


def clean(text: str) -> tuple[str, int]:
    """Replace lone surrogates, which no encoding has, and count them.

    Example:
        >>> clean("a" + chr(0xD800)) == ("a" + chr(0xFFFD), 1)
        True
    """
    return (text, 0) if text.isascii() else _SURROGATE.subn(chr(0xFFFD), text)
