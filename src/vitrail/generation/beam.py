"""Beam search with a certificate: an upper bound on every text that was not finished."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from vitrail.errors import VitrailError
from vitrail.generation.decoding import Decoding
from vitrail.generation.length_penalty import LengthPenalty, Power, score, upper_bound
from vitrail.kernels.best_words import best_words


@dataclass(frozen=True)
class Hypothesis:
    """A finished text.

    Args:
        tokens: new tokens, the end token included; without one the text was cut off at the largest length.
        log_prob: sum of the log-probabilities of its tokens.
        score: log-probability after the length penalty.
    """

    tokens: tuple[int, ...]
    log_prob: float
    score: float


@dataclass(frozen=True)
class BeamResult:
    """Result of a beam search for one text.

    Args:
        hypotheses: finished texts, the best score first; equal scores in the order of their tokens.
        bound: upper bound on the score of every text that goes on from an unfinished one.
        exact: whether an exact search proved that no text at all is better than the first; else a certificate is about
            those with a prefix in the beam.
    """

    hypotheses: tuple[Hypothesis, ...]
    bound: float
    exact: bool = False

    @property
    def certified(self) -> bool:
        """Whether no text that the bound covers is better than the first hypothesis."""
        return self.hypotheses[0].score >= self.bound


@dataclass(frozen=True)
class BeamOptions:
    """Numbers of a beam search.

    Args:
        beam: unfinished texts kept in each step, and finished texts returned.
        max_new: largest number of new tokens.
        stop: ids of tokens that end a text.
        penalty: length penalty.
        first: stop as soon as `beam` texts are finished, as CTranslate2 and `early_stopping=True` of Hugging Face, and
            not only if no better one is left: fewer steps, and no certificate.

    Raises:
        VitrailError: if a number is below 1, or there is no end token.
    """

    beam: int = 5
    max_new: int = 100
    stop: Collection[int] = ()
    penalty: LengthPenalty = field(default_factory=Power)
    first: bool = False

    def __post_init__(self) -> None:
        if self.beam < 1 or self.max_new < 1:
            raise VitrailError(f"beam and max_new need whole numbers from 1 up, got {self.beam} and {self.max_new}.")
        if not self.stop:
            raise VitrailError("Beam search needs the id of an end token: give stop=(id,).")


class BeamCandidate(NamedTuple):
    """A continuation that a step of the search looked at, best first.

    Args:
        log_prob: sum of the log-probabilities of its tokens.
        token: its last token.
        row: number of the unfinished text that it continues, among those that the step before kept.
        fate: `kept`, `finished`, or `pruned`.
    """

    log_prob: float
    token: int
    row: int
    fate: str


class _Text:
    """Search of one text: its unfinished and finished hypotheses, and the steps so far if they are recorded."""

    def __init__(self, options: BeamOptions, steps: list[list[BeamCandidate]] | None = None):
        self.options, self.steps = options, steps
        self.running: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        self.finished: list[Hypothesis] = []

    def finish(self, log_prob: float, tokens: tuple[int, ...]) -> None:
        """Add a finished text and keep the best."""
        self.finished.append(Hypothesis(tokens, log_prob, score(self.options.penalty, log_prob, len(tokens))))
        self.finished = sorted(self.finished, key=lambda one: (-one.score, one.tokens))[: self.options.beam]

    def advance(self, best: Sequence[tuple[float, int, int]]) -> list[int]:
        """Take one step; return the rows that go on. `best` has at least the best 2 `beam` continuations."""
        o = self.options
        candidates = best[: 2 * o.beam]
        going: list[tuple[float, tuple[int, ...]]] = []
        rows: list[int] = []
        fates = ["pruned"] * len(candidates)
        for rank, (log_prob, token, row) in enumerate(candidates):
            tokens = (*self.running[row][1], token)
            if token in o.stop or len(tokens) == o.max_new:
                # An end token counts only among the best `beam` candidates, as in Hugging Face.
                if rank < o.beam:
                    self.finish(log_prob, tokens)
                    fates[rank] = "finished"
            elif len(going) < o.beam:
                going.append((log_prob, tokens))
                rows.append(row)
                fates[rank] = "kept"
        if self.steps is not None:
            self.steps.append([BeamCandidate(*each, fate) for each, fate in zip(candidates, fates, strict=True)])
        self.running = going
        return rows

    @property
    def bound(self) -> float:
        """Upper bound on the score of every text with a prefix in the beam."""
        o = self.options
        return max((upper_bound(o.penalty, lp, len(t), o.max_new) for lp, t in self.running), default=-torch.inf)

    @property
    def done(self) -> bool:
        """Whether no text with a prefix in the beam can enter the finished ones, or may."""
        full = len(self.finished) == self.options.beam
        return not self.running or (full and (self.options.first or self.bound <= self.finished[-1].score))


@torch.no_grad()
def beam_search(
    decoding: Decoding,
    prompts: Sequence[Sequence[int]],
    options: BeamOptions | Sequence[BeamOptions],
    steps: list[list[BeamCandidate]] | None = None,
) -> list[BeamResult]:
    """Search for the most probable continuation of each prompt, all of one length.

    A text stops only if no text with a prefix in its beam can enter its `beam` finished ones (`early_stopping="never"`
    in Hugging Face), or with `options.first` if `beam` are finished. Candidates are ordered by (score, token, row), so
    the result is the same alone and in any batch, as far as scores round alike.

    Args:
        decoding: decoding of one row a prompt, nothing fed yet.
        prompts: token ids, all of the same length; of a translation the start token.
        options: numbers of the search, or those of each prompt.
        steps: filled with the candidates of each step, if there is one prompt.

    Raises:
        VitrailError: if the prompts have different lengths.
    """
    if len({len(prompt) for prompt in prompts}) != 1:
        raise VitrailError("Beam search needs prompts of one length. Group them by length.")
    each = [options] * len(prompts) if isinstance(options, BeamOptions) else options
    texts = [_Text(own, steps) for own in each]
    widest = 2 * max((own.beam for own in each), default=0)
    log_probs = decoding.feed(torch.tensor(prompts, device=decoding.device))
    alive = list(range(len(texts)))
    while alive:
        rows, first, ids = [], 0, []
        counts = [len(texts[number].running) for number in alive]
        sums = [log_prob for number in alive for log_prob, _ in texts[number].running]
        found = best_words(log_probs, sums, counts, widest)
        for number, count, best in zip(alive, counts, found, strict=True):
            text = texts[number]
            kept = text.advance(best)
            if text.done:
                kept = []
            rows += [first + row for row in kept]
            ids += [tokens[-1] for _, tokens in text.running] if kept else []
            first += count
        alive = [number for number in alive if not texts[number].done]
        if alive:
            decoding.select(torch.tensor(rows, device=decoding.device))
            log_probs = decoding.feed(torch.tensor(ids, device=decoding.device)[:, None])
    return [BeamResult(tuple(text.finished), text.bound) for text in texts]
