"""Vocabularies from files: `tokenizer.json`, or the two files of GPT-2."""

import json
from pathlib import Path
from typing import Any

from vitrail.errors import DataError, VitrailError
from vitrail.text.vocabulary import FILE, Vocabulary, tokenizers

# Names of the token table and of the merges, in OpenAI's release and in Hugging Face's.
_PAIRS = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))


def read_vocabulary(source: str | Path) -> Vocabulary:
    """Read a vocabulary.

    Args:
        source: a `tokenizer.json`, or a folder with one, or with `encoder.json` and `vocab.bpe` (GPT-2), or with
            `vocab.json` and `merges.txt`.

    Raises:
        VitrailError: if nothing is there.
        DataError: if a file is damaged.
    """
    path = Path(source)
    if path.is_file():
        return Vocabulary(_text(path))
    if (path / FILE).is_file():
        return Vocabulary(_text(path / FILE))
    for table, merges in _PAIRS:
        if (path / table).is_file() and (path / merges).is_file():
            return gpt2_vocabulary(path / table, path / merges)
    raise VitrailError(
        f"There is no vocabulary at {source}.\nGive a {FILE}, or a folder with one, or with encoder.json and vocab.bpe."
    )


def gpt2_vocabulary(table: Path, merges: Path) -> Vocabulary:
    """Build GPT-2's byte-pair vocabulary from its two files.

    "Language Models are Unsupervised Multitask Learners", section 2.2: bytes are the letters, so every text has tokens.

    Args:
        table: JSON object from tokens to ids.
        merges: pairs of tokens, the first to be merged first; a first line `#version` is skipped.

    Raises:
        DataError: if a file is damaged, or the merges need tokens that the table does not have.
    """
    library = tokenizers()
    try:
        ids = json.loads(_text(table))
    except json.JSONDecodeError as error:
        raise DataError(f"{table} is not JSON: {error}.") from error
    if not isinstance(ids, dict) or not all(isinstance(number, int) for number in ids.values()):
        raise DataError(f"{table} is no table of tokens: an object from tokens to whole numbers is needed.")
    lines = [line for line in _text(merges).split("\n") if line and not line.startswith("#version")]
    pairs = [tuple(line.split(" ")) for line in lines]
    wrong = next((line for line, pair in zip(lines, pairs, strict=True) if len(pair) != 2), None)
    if wrong is not None:
        raise DataError(f"{merges} has a line that is no pair of tokens: {wrong[:40]!r}.")
    try:
        tokenizer: Any = library.Tokenizer(library.models.BPE(vocab=ids, merges=pairs))
    except Exception as error:
        raise DataError(f"{table} and {merges} do not fit together: {error}.") from error
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    if "<|endoftext|>" in ids:
        tokenizer.add_special_tokens(["<|endoftext|>"])
    return Vocabulary(tokenizer.to_str())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}.") from error
