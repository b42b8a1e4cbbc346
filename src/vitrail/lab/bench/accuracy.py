"""Do two contenders give the same answers? A speed without that is no speed."""

from dataclasses import dataclass
from math import isfinite

from torch import Tensor

BARS = {"fp32": 1e-4, "bf16": 2e-2, "int8": 0.1}
"""Largest error that passes: as a share of the largest logit in fp32, else of the range of the logits."""

SAME_CLASS = {"fp32": 0.0, "bf16": 0.99, "int8": 0.95}
"""Least share of the images whose best class must be the same."""


@dataclass(frozen=True)
class Agreement:
    """How near the answers of a contender are to the reference, our model in fp32 as it was created.

    An image is decided when its best class leads by more than half the bar. With random weights many images are not:
    rounding alone picks their class, in any contender.

    Args:
        precision: `fp32`, `bf16` or `int8`: what was asked for, which sets the bars.
        error: largest difference as a share of the largest logit (fp32) or of the range of all logits (else); None
            where an answer is not finite.
        pictures: how many were compared.
        same: share of the images with the same best class.
        decided: how many images are decided.
        same_decided: share of the decided images with the same best class; 1 where none is decided.
        trained: whether the weights are; then every image counts, else only the decided ones.
    """

    precision: str
    error: float | None
    pictures: int
    same: float
    decided: int
    same_decided: float
    trained: bool

    @property
    def holds(self) -> bool:
        """Whether the answers are within the bars of their precision."""
        if self.error is None or self.error > BARS[self.precision]:
            return False
        counted = self.same if self.trained else self.same_decided
        return counted >= SAME_CLASS[self.precision]


def compare(got: Tensor, expected: Tensor, precision: str, trained: bool = False) -> Agreement:
    """Compare logits `(B, K)`.

    Args:
        got: of the contender.
        expected: of the reference, in fp32.
        precision: `fp32`, `bf16` or `int8`.
        trained: whether the weights are trained.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> compare(logits + 1e-6, logits, "fp32").holds, compare(logits.flip(1), logits, "bf16").holds
        (True, False)
    """
    got, expected = got.float().cpu(), expected.float().cpu()
    if got.shape != expected.shape:
        raise ValueError(f"answers of shape {tuple(got.shape)} for {tuple(expected.shape)}")
    scale = (expected.abs().max() if precision == "fp32" else expected.max() - expected.min()).item()
    error = (got - expected).abs().max().item() / (scale or 1.0)
    same = got.argmax(1) == expected.argmax(1)
    best = expected.topk(min(2, expected.shape[1]), dim=1).values
    decided = best[:, 0] - best[:, -1] > BARS[precision] / 2 * scale
    return Agreement(
        precision,
        error if isfinite(error) else None,
        len(got),
        same.float().mean().item(),
        int(decided.sum()),
        same[decided].float().mean().item() if decided.any() else 1.0,
        trained,
    )
