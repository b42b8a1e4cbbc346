"""Translation of token ids: greedy for validation, beam search for use, the same in every batch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from vitrail.generation.beam import BeamOptions, BeamResult, beam_search
from vitrail.generation.decoding import translation_decoding
from vitrail.generation.exact import exact_search
from vitrail.generation.length_penalty import GNMT, LengthPenalty, Power
from vitrail.layouts import TokenSequence
from vitrail.parts.model import Model
from vitrail.tasks.translate.batch import most_new
from vitrail.tasks.translate.options import BeamFlags

START, END = "<s>", "</s>"
TOGETHER = 64
"""Sources of a batch."""


def greedy(
    model: Model, sources: Sequence[Sequence[int]], start: int, end: int, most: int, steps: int = 0
) -> list[list[int]]:
    """Return the greedy translations, without end tokens.

    Args:
        model: the encoder-decoder, in evaluation mode.
        sources: token ids.
        start: id of the start token.
        end: id of the end token.
        most: most new tokens.
        steps: decoding steps to take in any case, so that several processes take as many; 0 to stop when all ended.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("transformer_tiny_multi30k", dim=8, depth=1, num_heads=1, vocab_size=9).eval()
        >>> len(greedy(model, [[4, 5], [6]], start=1, end=2, most=3))
        2
    """
    decoding = translation_decoding(model, sources, max(most, steps) + 1)
    found: list[list[int]] = [[] for _ in sources]
    alive, over = list(range(len(sources))), False
    ids = torch.full((len(sources), 1), start, device=decoding.device)
    for step in range(steps or most):
        best = decoding.feed(ids).argmax(dim=1)
        going = []
        for row, (number, token) in enumerate(zip(alive, best.tolist(), strict=True)):
            if token != end and step < most and not over:
                found[number].append(token)
                going.append(row)
        over = not going
        if over and not steps:
            break
        going = going or [0]  # the remaining steps of a fixed number
        alive = [alive[row] for row in going]
        chosen = torch.tensor(going, device=decoding.device)
        decoding.select(chosen)
        ids = best[chosen, None]
    return found


def penalty_of(flags: BeamFlags) -> LengthPenalty:
    """Return the length penalty of the options.

    Example:
        >>> penalty_of(BeamFlags(length_penalty=0.6))
        Power(alpha=0.6)
    """
    return (Power if flags.penalty == "power" else GNMT)(flags.length_penalty)


def beam_translations(
    model: Model,
    sources: Sequence[Sequence[int]],
    flags: BeamFlags,
    start: int,
    end: int,
    exact: bool = False,
    progress: Callable[[int], None] = lambda expanded: None,
) -> list[BeamResult]:
    """Return the result of a beam search for each source, in order.

    Up to `TOGETHER` of similar lengths are searched together. The length of a source, rounded up to a multiple of 8,
    fixes its most new tokens, so no limit depends on the other sources.

    Args:
        model: the encoder-decoder, in evaluation mode.
        sources: token ids, at least one each.
        flags: beam and length penalty.
        start: id of the start token.
        end: id of the end token.
        exact: go on until no better translation exists, or `LIMIT` prefixes of a source were expanded.
        progress: receives the number of prefixes of the present source that an exact search has expanded.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("transformer_tiny_multi30k", dim=8, depth=1, num_heads=1, vocab_size=9).eval()
        >>> found = beam_translations(model, [[4, 5]], BeamFlags(beam=2), start=1, end=2)
        >>> len(found[0].hypotheses)
        2
    """
    penalty, first = penalty_of(flags), flags.search == "first"
    each = [BeamOptions(flags.beam, most_new(len(source)), (end,), penalty, first) for source in sources]
    # Neighbours in length share a batch: less padding, and they end at about the same step.
    order = sorted(range(len(sources)), key=lambda number: each[number].max_new)
    found: Any = [None] * len(sources)
    for first in range(0, len(order), TOGETHER):
        batch = order[first : first + TOGETHER]
        options = [each[number] for number in batch]
        texts = [sources[number] for number in batch]
        decoding = translation_decoding(model, texts, max(one.max_new for one in options) + 1)
        for number, result in zip(batch, beam_search(decoding, [[start]] * len(batch), options), strict=True):
            found[number] = result
    if not exact:
        return found
    pairs = zip(sources, found, each, strict=True)
    return [_exact(model, source, begun, start, own, progress) for source, begun, own in pairs]


def _exact(
    model: Model,
    source: Sequence[int],
    begun: BeamResult,
    start: int,
    options: BeamOptions,
    progress: Callable[[int], None],
) -> BeamResult:
    if hasattr(model, "runtime"):
        return exact_search(_by_program(model, source, start), begun, options, progress=progress)
    device = model.embedding.words.weight.device
    with torch.no_grad():
        memory = model.encode(torch.tensor([source], device=device))

    def next_token(prefixes: Sequence[tuple[int, ...]]) -> torch.Tensor:
        ids = torch.tensor([[start, *prefix] for prefix in prefixes], device=device)
        layout = TokenSequence(ids.shape[1], memory=memory.expand(len(ids), -1, -1))
        return model.decode(ids, layout)[:, -1].float().log_softmax(dim=-1)

    return exact_search(next_token, begun, options, progress=progress)


def _by_program(model: Model, source: Sequence[int], start: int) -> Callable[[Sequence[tuple[int, ...]]], torch.Tensor]:
    """Return the scores of the token after each prefix by an exported step, which reads the source every time."""

    def next_token(prefixes: Sequence[tuple[int, ...]]) -> torch.Tensor:
        ids = torch.tensor([[start, *prefix] for prefix in prefixes])
        return translation_decoding(model, [source] * len(ids), ids.shape[1]).feed(ids)

    return next_token
