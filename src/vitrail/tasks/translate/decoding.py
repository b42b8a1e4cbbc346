"""Translation of token ids: greedy for validation, beam search for use, the same in every batch."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from vitrail.generation.beam import BeamOptions, BeamResult, beam_search
from vitrail.generation.decoding import TranslationDecoding
from vitrail.generation.exact import exact_search
from vitrail.generation.length_penalty import GNMT, LengthPenalty, Power
from vitrail.layouts import TokenSequence
from vitrail.tasks.translate.batch import most_new
from vitrail.tasks.translate.options import BeamFlags

START, END = "<s>", "</s>"


def greedy(
    model: Any, sources: Sequence[Sequence[int]], start: int, end: int, most: int, steps: int = 0
) -> list[list[int]]:
    """Return the greedy translations, without end tokens.

    Args:
        model: the encoder-decoder, in evaluation mode.
        sources: token ids.
        start: id of the start token.
        end: id of the end token.
        most: most new tokens.
        steps: decoding steps to take in any case, so that several processes take as many; 0 to stop when all ended.
    """
    decoding = TranslationDecoding(model, sources, max(most, steps) + 1)
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
    """Return the length penalty of the options."""
    return (Power if flags.penalty == "power" else GNMT)(flags.length_penalty)


def beam_translations(
    model: Any, sources: Sequence[Sequence[int]], flags: BeamFlags, start: int, end: int, exact: bool = False
) -> list[BeamResult]:
    """Return the result of a beam search for each source, in order.

    Sources whose lengths round up to the same multiple of 8 are searched together, and that multiple fixes the most new
    tokens: no limit depends on the other sources.

    Args:
        model: the encoder-decoder, in evaluation mode.
        sources: token ids, at least one each.
        flags: beam and length penalty.
        start: id of the start token.
        end: id of the end token.
        exact: go on until no better translation exists.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for number, source in enumerate(sources):
        groups[most_new(len(source))].append(number)
    found: dict[int, BeamResult] = {}
    for most, numbers in sorted(groups.items()):
        options = BeamOptions(flags.beam, most, (end,), penalty_of(flags))
        decoding = TranslationDecoding(model, [sources[number] for number in numbers], most + 1)
        found |= dict(zip(numbers, beam_search(decoding, [[start]] * len(numbers), options), strict=True))
        if exact:
            found |= {number: _exact(model, sources[number], found[number], start, options) for number in numbers}
    return [found[number] for number in range(len(sources))]


def _exact(model: Any, source: Sequence[int], begun: BeamResult, start: int, options: BeamOptions) -> BeamResult:
    device = model.embedding.words.weight.device
    with torch.no_grad():
        memory = model.encode(torch.tensor([source], device=device))

    def next_token(prefixes: Sequence[tuple[int, ...]]) -> torch.Tensor:
        ids = torch.tensor([[start, *prefix] for prefix in prefixes], device=device)
        layout = TokenSequence(ids.shape[1], memory=memory.expand(len(ids), -1, -1))
        return model.decode(ids, layout)[:, -1].float().log_softmax(dim=-1)

    return exact_search(next_token, begun, options)
