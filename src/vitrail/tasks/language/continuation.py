"""Continuation of a text, streamed: any number of new tokens from a window of bounded length."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from vitrail.errors import VitrailError
from vitrail.generation.generate import stream
from vitrail.generation.sampling import Choice, Greedy, Sample
from vitrail.parts.model import Model
from vitrail.tasks.inference import evaluating
from vitrail.tasks.language.options import GenerateOptions
from vitrail.tasks.native_decoding import decoder_of
from vitrail.tasks.text_inputs import need_vocabulary
from vitrail.text.vocabulary import UNKNOWN, Vocabulary

END_TOKENS = ("<|endoftext|>", "</s>", "[SEP]")
"""Tokens that end a text, if the vocabulary has them."""
_REPLACEMENT = chr(0xFFFD)


class Prompt(NamedTuple):
    """A prompt as the model reads it.

    Args:
        ids: token ids, at least one.
        unread: tokens at its beginning that are before the first window.
        replaced: characters that no encoding has, each read as U+FFFD.
        unknown: tokens that stand for anything outside the vocabulary.
    """

    ids: list[int]
    unread: int = 0
    replaced: int = 0
    unknown: int = 0

    def __str__(self) -> str:
        notes = [f"the first {self.unread} of {len(self.ids)} tokens of the prompt are not read"] if self.unread else []
        notes += [f"{self.replaced} characters are not Unicode and were replaced"] if self.replaced else []
        notes += [f"{self.unknown} of {len(self.ids)} {UNKNOWN}"] if self.unknown else []
        return "; ".join(notes)


@dataclass(frozen=True)
class LaterChoice:
    """A choice whose steps are counted from an offset, so that a new window goes on with new draws.

    Args:
        choice: the rule.
        offset: tokens chosen before.
    """

    choice: Choice
    offset: int

    def __call__(self, log_probs: Tensor, step: int, samples: np.ndarray) -> Tensor:
        """Return the tokens."""
        return self.choice(log_probs, step + self.offset, samples)


def choice_of(options: GenerateOptions) -> Choice:
    """Return the rule that options describe.

    Example:
        >>> choice_of(GenerateOptions(temperature=0))
        Greedy()
    """
    if options.temperature == 0:
        return Greedy()
    return Sample(options.temperature, options.top_k, options.top_p, options.seed)


def stream_tokens(model: Model, prompt: list[int], count: int, choose: Choice, context: int) -> Iterator[int]:
    """Yield new tokens; a full window starts again from its second half, so the text may be longer than any window.

    Args:
        model: a language model, in evaluation mode.
        prompt: token ids, at least one; of a longer one than the window its end is read.
        count: most new tokens.
        choose: rule of the next token.
        context: tokens of a window.

    Example:
        >>> from vitrail.models import create_model
        >>> from vitrail.text.learning import learn_characters
        >>> model = create_model("gpt2", dim=8, depth=1, num_heads=1, vocab_size=20, max_length=8).eval()
        >>> model.inputs = learn_characters("abc")
        >>> len(list(stream_tokens(model, [3], count=12, choose=Greedy(), context=8)))
        12
    """
    stop = {model.inputs.id_of(token) for token in END_TOKENS if model.inputs.has(token)}
    text, done = list(prompt), 0
    while done < count:
        window = text[-window_of(len(text), context) :]
        room = min(count - done, context - len(window) + 1)
        for token in stream(model, window, room, LaterChoice(choose, done), stop):
            text.append(token)
            done += 1
            yield token
            if token in stop:
                return


def stream_text(vocabulary: Vocabulary, tokens: Iterator[int]) -> Iterator[str]:
    """Yield the text of tokens as they come; bytes of an unfinished character wait for the others.

    Example:
        >>> from vitrail.text.learning import learn_characters
        >>> vocabulary = learn_characters("abc")
        >>> "".join(stream_text(vocabulary, iter([vocabulary.id_of("a"), vocabulary.id_of("b")])))
        'ab'
    """
    pending: list[int] = []
    before = ""
    for token in tokens:
        pending.append(token)
        text = vocabulary.decode(pending)
        if text.endswith(_REPLACEMENT) and len(pending) < 64:
            continue
        if len(text) > len(before):
            yield text[len(before) :]
        if len(pending) > 32 and text:  # decode a bounded number of tokens again: time stays linear
            pending, before = pending[-1:], vocabulary.decode(pending[-1:])
        else:
            before = text
    rest = vocabulary.decode(pending)[len(before) :]
    if rest:
        yield rest


def generate_text(
    model: Model, prompt: str, options: GenerateOptions, context: int, notify: Callable[[str], None] = lambda line: None
) -> Iterator[str]:
    """Yield the pieces of a prompt's continuation as they come.

    Args:
        model: a language model with its vocabulary.
        prompt: the text to continue.
        options: choice of tokens, and what decodes.
        context: tokens of a window.
        notify: receives what of the prompt is not read, and the reason if native code cannot decode.
    """
    choose, vocabulary = choice_of(options), need_vocabulary(model)
    read = read_prompt(vocabulary, prompt, context)
    if str(read):
        notify(str(read))
    decoder = decoder_of(model, options.decode, context, notify)
    with evaluating(model):
        yield from stream_text(vocabulary, stream_tokens(decoder, read.ids, options.tokens, choose, context))


class Piece(NamedTuple):
    """A piece of streamed text.

    Args:
        text: the text; some characters take several tokens.
        probability: probability of its tokens under the model, whatever the temperature.
        alternatives: the likeliest first tokens with their probabilities, best first.
    """

    text: str
    probability: float
    alternatives: tuple[tuple[str, float], ...]


class RecordedChoice:
    """A choice of tokens that keeps the probabilities of its steps, for one text.

    Args:
        choice: the rule.
        count: number of likeliest tokens to keep.
    """

    def __init__(self, choice: Choice, count: int):
        self.choice, self.count = choice, count
        self.steps: list[tuple[float, list[int], list[float]]] = []

    def __call__(self, log_probs: Tensor, step: int, samples: np.ndarray) -> Tensor:
        """Return the tokens."""
        chosen = self.choice(log_probs, step, samples)
        best = log_probs[0].topk(min(self.count, log_probs.shape[-1]))
        probability = float(log_probs[0, chosen[0]].exp())
        self.steps.append((probability, best.indices.tolist(), best.values.exp().tolist()))
        return chosen


def generate_pieces(
    model: Model, prompt: str, options: GenerateOptions, context: int, alternatives: int = 5
) -> Iterator[Piece]:
    """Yield the pieces of a prompt's continuation as `generate_text` does, each with its probability.

    Args:
        model: a language model with its vocabulary.
        prompt: the text to continue.
        options: choice of tokens.
        context: tokens of a window.
        alternatives: number of likeliest tokens of each piece.
    """
    choose, vocabulary = RecordedChoice(choice_of(options), alternatives), need_vocabulary(model)
    read = read_prompt(vocabulary, prompt, context)
    decoder = decoder_of(model, options.decode, context)
    with evaluating(model):
        for text in stream_text(vocabulary, stream_tokens(decoder, read.ids, options.tokens, choose, context)):
            steps, choose.steps = choose.steps, []
            probability = math.prod(step[0] for step in steps)
            names = [vocabulary.decode([token]) for token in steps[0][1]] if steps else []
            yield Piece(text, probability, tuple(zip(names, steps[0][2] if steps else (), strict=True)))


def continue_text(model: Model, prompt: str, options: GenerateOptions, context: int) -> str:
    """Return the continuation of a text."""
    return "".join(generate_text(model, prompt, options, context))


def window_of(count: int, context: int) -> int:
    """Return how many of the last tokens a window starts with: all, or its half if they fill it.

    Example:
        >>> window_of(5, 8), window_of(8, 8), window_of(100, 8)
        (5, 4, 4)
    """
    return count if count < context else context // 2 or 1


def read_prompt(vocabulary: Vocabulary, prompt: str, context: int) -> Prompt:
    """Return the token ids of a prompt; an empty one is the end token, after which a text begins.

    Args:
        vocabulary: the vocabulary.
        prompt: the text.
        context: tokens of a window.

    Raises:
        VitrailError: the prompt is empty, and the vocabulary has no such token.

    Example:
        >>> from vitrail.text.learning import learn_characters
        >>> len(read_prompt(learn_characters("abc"), "cab", context=8).ids)
        3
    """
    encoded = vocabulary.encode([prompt], special=False)
    ids = list(encoded.ids[0])
    if ids:
        return Prompt(ids, len(ids) - window_of(len(ids), context), encoded.replaced[0], encoded.unknown[0])
    ends = [vocabulary.id_of(token) for token in END_TOKENS if vocabulary.has(token)]
    if not ends:
        raise VitrailError("The prompt is empty, and this model needs at least one character to go on from.")
    return Prompt(ends[:1])
