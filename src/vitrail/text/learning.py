"""Learning a byte-pair vocabulary from a text."""

from collections.abc import Iterable, Sequence
from typing import Any

from vitrail.errors import VitrailError
from vitrail.text.vocabulary import Vocabulary, clean, tokenizers


def learn_vocabulary(
    lines: Iterable[str], size: int, special: Sequence[str] = ("<pad>", "<s>", "</s>"), lowercase: bool = False
) -> Vocabulary:
    """Learn a byte-pair vocabulary: the most frequent pair of tokens becomes one token, until there are `size`.

    "Neural Machine Translation of Rare Words with Subword Units", section 3.2, over bytes, so no text has unknown
    tokens. Learn it on the training split alone.

    Args:
        lines: texts.
        size: tokens of the vocabulary, the 256 bytes and the special ones included; a small text gives fewer.
        special: special tokens; they get the first ids.
        lowercase: whether texts are lower-cased, now and whenever the vocabulary is used.

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
    return Vocabulary(tokenizer.to_str())
