"""Replay of byte pair encoding: the merges of each word, one by one."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from vitrail.text.vocabulary import Vocabulary, tokenizers


class MergeStep(NamedTuple):
    """Tokens of a word before a merge.

    Args:
        tokens: the tokens.
        pair: position of the first of the two tokens that merge next; -1 at the end.
        rank: number of the merge, learned first to last; -1 at the end.
    """

    tokens: tuple[str, ...]
    pair: int
    rank: int


def replay(vocabulary: Vocabulary, text: str) -> list[list[MergeStep]]:
    """Return the steps of every word of a text: the pair that was learned first is merged first.

    "Neural Machine Translation of Rare Words with Subword Units", algorithm 1. Empty if the vocabulary is no BPE.

    Example:
        >>> from vitrail.text.learning import learn_vocabulary
        >>> vocabulary = learn_vocabulary(["low lower lowest"] * 5, size=265)
        >>> [step.tokens for step in replay(vocabulary, "low")[0]]
        [('l', 'o', 'w'), ('lo', 'w'), ('low',)]
    """
    model = json.loads(vocabulary.to_json())["model"]
    if model.get("type") != "BPE":
        return []
    pairs = [tuple(each.split(" ")) if isinstance(each, str) else tuple(each) for each in model["merges"]]
    ranks = {pair: rank for rank, pair in enumerate(pairs)}
    ending = model.get("end_of_word_suffix") or ""
    return [_word(word, ranks, ending) for word in _words(vocabulary, text)]


def _words(vocabulary: Vocabulary, text: str) -> list[str]:
    """Return the words that are merged separately, as the tokenizer cuts and spells them."""
    tokenizer: Any = tokenizers().Tokenizer.from_str(vocabulary.to_json())
    normalised = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
    if tokenizer.pre_tokenizer is None:
        return [normalised]
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalised)]


def _word(word: str, ranks: dict[tuple[str, ...], int], ending: str) -> list[MergeStep]:
    tokens, steps = [*word[:-1], word[-1:] + ending], []
    while True:
        found = [(ranks[pair], i) for i, pair in enumerate(pairwise(tokens)) if pair in ranks]
        if not found:
            return [*steps, MergeStep(tuple(tokens), -1, -1)]
        rank, first = min(found)
        steps.append(MergeStep(tuple(tokens), first, rank))
        pair = (tokens[first], tokens[first + 1])
        tokens = _merged(tokens, pair)


def _merged(tokens: Sequence[str], pair: tuple[str, str]) -> list[str]:
    """Merge every occurrence of a pair, from the left."""
    out: list[str] = []
    i = 0
    while i < len(tokens):
        if tuple(tokens[i : i + 2]) == pair:
            out.append(tokens[i] + tokens[i + 1])
            i += 2
        else:
            out.append(tokens[i])
            i += 1
    return out
