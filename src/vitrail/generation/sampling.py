"""How the next token is chosen: the most probable one, or a draw by a counter-based generator."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vitrail.data.stateless_rng import BatchRng
from vitrail.errors import VitrailError


class Choice(Protocol):
    """A rule that chooses the next token of each row."""

    def __call__(self, log_probs: Tensor, step: int, samples: np.ndarray) -> Tensor:
        """Return a token for each row of `(R, V)`; `step` counts new tokens, `samples` numbers a prompt's draws."""
        ...


@dataclass(frozen=True)
class Greedy:
    """The most probable token; of several, that with the lowest id.

    Example:
        >>> Greedy()(torch.tensor([[0.0, 2.0, 2.0]]), 0, np.zeros(1, int)).tolist()
        [1]
    """

    def __call__(self, log_probs: Tensor, step: int, samples: np.ndarray) -> Tensor:
        """Return the tokens."""
        if log_probs.device.type == "cpu" and log_probs.dtype == torch.float32:
            return torch.from_numpy(log_probs.detach().numpy().argmax(axis=1))  # the first of several
        ids = torch.arange(log_probs.shape[1], device=log_probs.device)
        best = log_probs == log_probs.amax(dim=1, keepdim=True)
        return torch.where(best, ids, log_probs.shape[1]).amin(dim=1)


@dataclass(frozen=True)
class Sample:
    """A draw from the distribution after temperature, top-k and top-p, in this order.

    A draw is a function of (seed, number of the sample, number of the new token) alone: the same text comes out alone,
    in any batch, and after an interruption. Two equal prompts with the same sample number continue alike.

    Args:
        temperature: scores are divided by it; below 1 sharper, above 1 flatter.
        top_k: only the k most probable tokens, and those as probable as the last of them; 0 for all.
        top_p: only the most probable tokens whose probabilities reach p in sum ("nucleus"); 1 for all.
        seed: seed of the draws.

    Raises:
        VitrailError: if a number is out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise VitrailError(
                f"temperature needs a number above 0, got {self.temperature}. For no randomness: Greedy."
            )
        if self.top_k < 0:
            raise VitrailError(f"top_k needs a whole number from 0 (all tokens) up, got {self.top_k}.")
        if not 0 < self.top_p <= 1:
            raise VitrailError(f"top_p needs a number above 0 and up to 1 (all tokens), got {self.top_p}.")

    def __call__(self, log_probs: Tensor, step: int, samples: np.ndarray) -> Tensor:
        """Return the tokens."""
        kept = restrict(log_probs / self.temperature, self.top_k, self.top_p)
        cumulative = kept.double().softmax(dim=1).cumsum(dim=1)
        drawn = torch.from_numpy(BatchRng(self.seed, step, samples).uniform("token")).to(cumulative.device)
        # The first token whose cumulative probability is above the draw; those left out have no share of their own.
        target = drawn[:, None] * cumulative[:, -1:]
        return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp_max(log_probs.shape[1] - 1)


def restrict(logits: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Set the scores of all tokens but the most probable ones to -inf; the best one always stays.

    "Hierarchical Neural Story Generation", section 5.4 (top-k); "The Curious Case of Neural Text Degeneration",
    section 3.1 (top-p): the smallest set whose probabilities reach p in sum.

    Example:
        >>> restrict(torch.tensor([[1.0, 3.0, 2.0]]), top_k=2).tolist()
        [[-inf, 3.0, 2.0]]
    """
    if 0 < top_k < logits.shape[1]:
        least = logits.topk(top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1:
        ordered, index = logits.sort(dim=1, descending=True, stable=True)
        probabilities = ordered.softmax(dim=1)
        before = probabilities.cumsum(dim=1) - probabilities
        out = (before >= top_p).scatter(1, index, before >= top_p)
        logits = logits.masked_fill(out, -torch.inf)
    return logits
