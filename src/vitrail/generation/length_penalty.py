"""Length penalties of beam search, each named by its formula."""

from dataclasses import dataclass
from typing import Protocol


class LengthPenalty(Protocol):
    """A divisor of log-probabilities that grows or shrinks steadily with the length."""

    def divisor(self, length: int) -> float:
        """Return the divisor for a text of `length` new tokens, its end token included."""
        ...


@dataclass(frozen=True)
class NoPenalty:
    """score = log p."""

    def divisor(self, length: int) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Power:
    """score = log p / length^alpha, as in Hugging Face, Marian and CTranslate2.

    Args:
        alpha: 0 for none, 1 for the mean log-probability of a token; below 0 for shorter texts.

    Example:
        >>> Power(1.0).divisor(4)
        4.0
    """

    alpha: float = 1.0

    def divisor(self, length: int) -> float:
        """Return length^alpha."""
        return float(length) ** self.alpha


@dataclass(frozen=True)
class GNMT:
    """score = log p / ((5 + length) / 6)^alpha, "Google's Neural Machine Translation System", equation 14.

    Args:
        alpha: 0.6 in "Attention Is All You Need".

    Example:
        >>> GNMT(1.0).divisor(1)
        1.0
    """

    alpha: float = 0.6

    def divisor(self, length: int) -> float:
        """Return ((5 + length) / 6)^alpha."""
        return ((5 + length) / 6) ** self.alpha


def score(penalty: LengthPenalty, log_prob: float, length: int) -> float:
    """Return the score of a finished text."""
    return log_prob / penalty.divisor(length)


def upper_bound(penalty: LengthPenalty, log_prob: float, length: int, longest: int) -> float:
    """Return an upper bound on the score of every text that goes on from one of `length` tokens.

    More tokens only lower the log-probability, so the bound has the best divisor between one more token and `longest`;
    a steady divisor is best at one of these two.

    Example:
        >>> upper_bound(Power(1.0), -2.0, 1, longest=4)
        -0.5
    """
    return max(log_prob / penalty.divisor(n) for n in (length + 1, max(longest, length + 1)))
