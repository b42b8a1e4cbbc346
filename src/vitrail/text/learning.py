"""Learning a vocabulary from texts: byte pairs, words, or characters."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from vitrail.errors import VitrailError
from vitrail.text.vocabulary import Vocabulary, clean, tokenizers

SPECIAL = ("<pad>", "<s>", "</s>")
"""Special tokens of a learnt vocabulary, with the first ids."""
UNKNOWN = "<unk>"
"""Token of a word or character that the training texts do not have."""


def learn_vocabulary(
    lines: Iterable[str], size: int, special: Sequence[str] = SPECIAL, lowercase: bool = False, start: bool = False
) -> Vocabulary:
    """Learn a byte-pair vocabulary: the most frequent pair of tokens becomes one token, until there are `size`.

    "Neural Machine Translation of Rare Words with Subword Units", section 3.2, over bytes, so no text has unknown
    tokens. Learn it on the training split alone.

    Args:
        lines: texts.
        size: tokens of the vocabulary, the 256 bytes and the special ones included; a small text gives fewer.
        special: special tokens; they get the first ids.
        lowercase: whether texts are lower-cased, now and whenever the vocabulary is used.
        start: whether every text begins with the token `<s>`, so that an empty one has a token too.

    Raises:
        VitrailError: if `size` leaves no room for merges.

    Example:
        >>> vocabulary = learn_vocabulary(["low lower lowest"] * 5, size=265)
        >>> [vocabulary.decode([token]) for token in vocabulary.encode(["lower"]).ids[0]]
        ['low', 'e', 'r']
    """
    library = tokenizers()
    least = 256 + len(special)
    if size < least:
        raise VitrailError(f"A byte-pair vocabulary needs at least {least} tokens (256 bytes and special), got {size}.")
    tokenizer: Any = library.Tokenizer(library.models.BPE())
    if lowercase:
        tokenizer.normalizer = library.normalizers.Lowercase()
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((clean(line)[0] for line in lines), trainer)
    if start:
        _begin_with_start(tokenizer)
    return Vocabulary(tokenizer.to_str())


def learn_framed(lines: Iterable[str], size: int, frame: tuple[str, str, str], lowercase: bool = False) -> Vocabulary:
    """Learn a byte-pair vocabulary whose texts have a first and an end token, and that has a mask token, as BERT's.

    Args:
        lines: texts.
        size: tokens of the vocabulary.
        frame: first token, end token, mask token; the padding `[PAD]` has id 0.
        lowercase: whether texts are lower-cased.
    """
    first, end, _ = frame
    learnt = learn_vocabulary(lines, size, ("[PAD]", *frame), lowercase)
    library = tokenizers()
    tokenizer: Any = library.Tokenizer.from_str(learnt.to_json())
    ids = [(token, learnt.id_of(token)) for token in (first, end)]
    tokenizer.post_processor = library.processors.TemplateProcessing(
        single=f"{first} $A {end}", pair=f"{first} $A {end} $B:1 {end}:1", special_tokens=ids
    )
    return Vocabulary(tokenizer.to_str())


def learn_words(
    lines: Iterable[str], size: int, least: int = 1, lowercase: bool = False, start: bool = False
) -> Vocabulary:
    """Learn a vocabulary of whole words: the most frequent ones; any other word is `<unk>`.

    Words are runs of letters and digits, and runs of other characters that are no space. Equal counts are ordered by
    the word.

    Args:
        lines: texts.
        size: most tokens of the vocabulary, the special ones included.
        least: least number of occurrences of a word.
        lowercase: whether texts are lower-cased, now and whenever the vocabulary is used.
        start: whether every text begins with the token `<s>`.

    Example:
        >>> vocabulary = learn_words(["so it goes", "so it is"], size=6)
        >>> vocabulary.encode(["it is so"]).ids
        ((4, 3, 5),)
    """
    library = tokenizers()
    split: Any = library.pre_tokenizers.Whitespace()
    fold = str.lower if lowercase else str
    counts = Counter(word for line in lines for word, _ in split.pre_tokenize_str(fold(clean(line)[0])))
    kept = sorted((word for word, count in counts.items() if count >= least), key=lambda word: (-counts[word], word))
    tokens = [*SPECIAL, UNKNOWN, *(word for word in kept if word not in (*SPECIAL, UNKNOWN))][:size]
    tokenizer = _table(tokens)
    tokenizer.pre_tokenizer = split
    if lowercase:
        tokenizer.normalizer = library.normalizers.Lowercase()
    if start:
        _begin_with_start(tokenizer)
    return Vocabulary(tokenizer.to_str())


def learn_characters(text: str) -> Vocabulary:
    """Learn a vocabulary of the characters of a text, in the order of their code points; any other is `<unk>`.

    Example:
        >>> vocabulary = learn_characters("to be")
        >>> vocabulary.encode(["bet!"]).ids, vocabulary.decode([2, 3, 5])
        (((2, 3, 5, 0),), 'bet')
    """
    library = tokenizers()
    tokenizer = _table([UNKNOWN, *sorted(set(clean(text)[0]))])
    tokenizer.pre_tokenizer = library.pre_tokenizers.Split(library.Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = library.decoders.Fuse()
    return Vocabulary(tokenizer.to_str())


def _table(tokens: Sequence[str]) -> Any:
    library = tokenizers()
    ids = {token: number for number, token in enumerate(tokens)}
    tokenizer: Any = library.Tokenizer(library.models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.add_special_tokens([token for token in tokens[: len(SPECIAL) + 1] if token in (*SPECIAL, UNKNOWN)])
    return tokenizer


def _begin_with_start(tokenizer: Any) -> None:
    start = SPECIAL[1]
    single = tokenizers().processors.TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, tokenizer.token_to_id(start))]
    )
    tokenizer.post_processor = single
