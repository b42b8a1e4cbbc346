"""Continuation of prompts: whole, or token by token as they come."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch

from vitrail.errors import VitrailError
from vitrail.generation.decoding import Decoding, language_decoding, pad_batch
from vitrail.generation.sampling import Choice, Greedy
from vitrail.parts.model import Model

Prompts = Sequence[Sequence[int]]


def generate(
    model: Model,
    prompts: Prompts,
    max_new: int,
    choose: Choice | None = None,
    stop: Collection[int] = (),
    samples: int = 1,
) -> list[list[int]]:
    """Return the new tokens of each prompt.

    The result of a prompt does not depend on the other prompts of the batch, as far as scores of products of another
    batch size round alike (differences near 1e-6 matter only between two tokens that are as close).

    Args:
        model: a language model, in evaluation mode, or an optimized one (`vitrail.optimize`).
        prompts: token ids, each at least one.
        max_new: largest number of new tokens.
        choose: `Greedy()` by default, or `Sample(...)`.
        stop: ids of tokens that end a text; they are part of it.
        samples: continuations of each prompt, in consecutive rows.

    Raises:
        VitrailError: if a prompt is empty, or the model has too few positions.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("gpt2", dim=16, depth=1, num_heads=2, vocab_size=20, max_length=12).eval()
        >>> [len(text) for text in generate(model, [[1, 2, 3], [4]], max_new=5)]
        [5, 5]
    """
    rows = [prompt for prompt in prompts for _ in range(samples)]
    numbers = np.tile(np.arange(samples), len(prompts))
    texts: list[list[int]] = [[] for _ in rows]
    for step in _steps(_decoding(model, rows, max_new), rows, max_new, choose or Greedy(), set(stop), numbers):
        for row, token in step:
            texts[row].append(token)
    return texts


def stream(
    model: Model, prompt: Sequence[int], max_new: int, choose: Choice | None = None, stop: Collection[int] = ()
) -> Iterator[int]:
    """Yield the new tokens of one prompt as they come; the same as `generate` returns.

    Args:
        model: a language model, in evaluation mode.
        prompt: token ids, at least one.
        max_new: largest number of new tokens.
        choose: `Greedy()` by default, or `Sample(...)`.
        stop: ids of tokens that end the text.
    """
    decoding = _decoding(model, [prompt], max_new)
    for step in _steps(decoding, [prompt], max_new, choose or Greedy(), set(stop), np.zeros(1, dtype=int)):
        yield from (token for _, token in step)


def _decoding(model: Model, rows: Prompts, max_new: int) -> Decoding:
    if max_new < 1:
        raise VitrailError(f"max_new needs a whole number from 1 up, got {max_new}.")
    pad_batch(rows)  # refuses empty prompts
    return language_decoding(model, len(rows), max(map(len, rows)) + max_new - 1)


@torch.no_grad()
def _steps(
    decoding: Decoding, prompts: Prompts, max_new: int, choose: Choice, stop: set[int], numbers: np.ndarray
) -> Iterator[list[tuple[int, int]]]:
    """Yield the new tokens of each step as pairs (row, token).

    No row is padded: all are fed the shortest prompt's length at once, and a row with a longer prompt is then fed its
    own tokens while others get their generated tokens. So every row is at the same position, alone and in any batch.
    """
    place = min(map(len, prompts))
    alive = list(range(len(prompts)))
    texts = [list(prompt) for prompt in prompts]
    fed = torch.tensor([text[:place] for text in texts], device=decoding.device)
    while alive:
        log_probs = decoding.feed(fed)
        emitted: list[tuple[int, int]] = []
        for step in {place - len(prompts[row]) for row in alive}:
            group = [i for i, row in enumerate(alive) if place - len(prompts[row]) == step]
            if step < 0:
                continue
            scores = log_probs if len(group) == len(alive) else log_probs[group]
            chosen = choose(scores, step, numbers[[alive[i] for i in group]]).tolist()
            emitted += [(alive[i], token) for i, token in zip(group, chosen, strict=True)]
        for row, token in emitted:
            texts[row].append(token)
        yield sorted(emitted)
        place += 1
        ended = {row for row, token in emitted if token in stop or len(texts[row]) == len(prompts[row]) + max_new}
        kept = [i for i, row in enumerate(alive) if row not in ended]
        alive = [alive[i] for i in kept]
        if ended and alive:
            decoding.select(torch.tensor(kept, device=decoding.device))
        fed = torch.tensor([[texts[row][place - 1]] for row in alive], device=decoding.device)
