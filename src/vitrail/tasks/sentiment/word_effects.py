"""Words that decided a classification: occlusion of one word at a time."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitrail.parts.model import Model
from vitrail.tasks.inference import device_of
from vitrail.tasks.text_inputs import encode_texts, pad_ids, padded_layout

MOST_WORDS = 256
"""Words of a text that are tried; those after them get no effect."""
_BATCH = 32


class WordEffect(NamedTuple):
    """Effect of one word: the log-odds of the predicted class with it, minus those without it.

    Args:
        word: the word, as it is in the text.
        effect: positive if it speaks for the predicted class; None if it was not tried.
    """

    word: str
    effect: float | None


@torch.inference_mode()
def word_effects(model: Model, text: str, longest: int) -> tuple[WordEffect, ...]:
    """Return the effect of each word of a text, words being separated by spaces.

    effect_i = logit(p_c(text)) - logit(p_c(text without word i)), c the predicted class

    "Visualizing and Understanding Neural Models in NLP", Li et al. 2016, and "Understanding Neural Networks through
    Representation Erasure": occlusion is exact for any model, at a forward pass for each word.

    Args:
        model: a classifier of texts, in evaluation mode.
        text: the text.
        longest: most tokens of a text; words beyond have no effect.
    """
    words = text.split()
    spaced = [*(word + " " for word in words[:-1]), *words[-1:]]
    read = words_read(spaced, longest, lambda part: encode_texts(model.inputs, [part], longest).truncated[0])

    def score(texts: Sequence[str]) -> Tensor:
        ids = encode_texts(model.inputs, texts, longest).ids
        logits = torch.cat([_logits(model, ids[start : start + _BATCH]) for start in range(0, len(ids), _BATCH)])
        return log_odds(logits, int(logits[0].argmax()))

    return (*occlusion(spaced[:read], score), *(WordEffect(word, None) for word in words[read:]))


def words_read(words: Sequence[str], longest: int, truncated: Callable[[str], int]) -> int:
    """Return the length of a beginning of a text that holds twice the tokens that a model reads, if there are so many.

    The words after it change no score, with or without another word, and encoding them for each word would take long.

    Args:
        words: words with the space after each.
        longest: most tokens that the model reads.
        truncated: number of tokens of a text beyond `longest`.

    Example:
        >>> words_read(["a "] * 100, 8, lambda text: len(text.split()) - 8)
        16
    """
    count = longest
    while count < len(words) and truncated("".join(words[:count])) < longest:
        count *= 2
    return min(count, len(words))


def occlusion(words: Sequence[str], score: Callable[[Sequence[str]], Tensor]) -> tuple[WordEffect, ...]:
    """Return the effect of each word on a score: that of the text minus that of the text without the word.

    Args:
        words: the words with the space after each, which put together are the text.
        score: `texts -> (B,)`, called once, the whole text first.
    """
    tried = range(min(len(words), MOST_WORDS))
    scores = score(["".join(words), *(_without(words, i) for i in tried)])
    effects: list[float | None] = [round(float(scores[0] - one), 4) for one in scores[1:]]
    return tuple(map(WordEffect, (word.strip() for word in words), effects + [None] * (len(words) - len(tried))))


def _without(words: Sequence[str], i: int) -> str:
    """Return the text without a word; the space that ends a text stays at its end."""
    if i < len(words) - 1:
        return "".join([*words[:i], *words[i + 1 :]])
    return "".join(words[:-1]).rstrip() + words[-1][len(words[-1].rstrip()) :]


def mark_words(words: tuple[WordEffect, ...], count: int = 3) -> str:
    """Return a text with its deciding words in brackets, those against the class with a minus sign.

    Marked are the `count` words of the largest effect that have at least a quarter of the largest.

    Example:
        >>> mark_words((WordEffect("a", 0.0), WordEffect("great", 2.0), WordEffect("bore", -1.0)))
        'a [great +2.0] [bore -1.0]'
    """
    sizes = sorted((abs(word.effect or 0.0) for word in words), reverse=True)
    least = max([*sizes[:count][-1:], sizes[0] / 4 if sizes else 0.0, 1e-3])
    return " ".join(
        f"[{word} {effect:+.1f}]" if effect is not None and abs(effect) >= least else word for word, effect in words
    )


def _logits(model: Model, ids: Any) -> Tensor:
    padded, lengths = pad_ids(ids)
    device = device_of(model)
    padded, lengths = padded.to(device), lengths.to(device)
    return model(padded, padded_layout(padded, lengths)).double().cpu()


def log_odds(logits: Tensor, chosen: int) -> Tensor:
    """Return `log p_c - log (1 - p_c)` of each row: the logit of the class against all others.

    Example:
        >>> log_odds(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), 0).tolist()
        [0.0, 1.0]
    """
    others = torch.cat([logits[:, :chosen], logits[:, chosen + 1 :]], dim=1)
    return logits[:, chosen] - others.logsumexp(dim=1)
