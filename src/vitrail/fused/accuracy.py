"""Numerical agreement of a candidate with the reference; a timing counts only with it."""

from dataclasses import dataclass
from math import isfinite

from torch import Tensor

BARS = {"fp32": 1e-4, "bf16": 2e-2, "int8": 0.1}
"""Largest error that passes: as a share of the largest logit in fp32, else of the range of the logits."""

SAME_CLASS = {"fp32": 0.0, "bf16": 0.99, "int8": 0.95}
"""Least share of the images whose best class must be the same."""


@dataclass(frozen=True)
class Agreement:
    """Error of a candidate's logits against the reference, our unmodified model in fp32.

    An image is decided if the margin of its best class is more than half the tolerance. With random weights many images
    are not: rounding alone selects their class.

    Args:
        precision: `fp32`, `bf16` or `int8`: the requested precision, which sets the tolerances.
        error: largest difference as a share of the largest logit (fp32) or of the range of all logits (else); None
            if a logit is not finite.
        images: number of images compared.
        same: share of the images with the same best class.
        decided: number of decided images.
        same_decided: share of the decided images with the same best class; 1 if none is decided.
        trained: whether the weights are trained; then every image counts, else only the decided ones.
    """

    precision: str
    error: float | None
    images: int
    same: float
    decided: int
    same_decided: float
    trained: bool

    @property
    def holds(self) -> bool:
        """Whether the errors are within the tolerances of the precision."""
        if self.error is None or self.error > BARS[self.precision]:
            return False
        counted = self.same if self.trained else self.same_decided
        return counted >= SAME_CLASS[self.precision]


def compare(got: Tensor, expected: Tensor, precision: str, trained: bool = False) -> Agreement:
    """Compare logits `(B, K)`.

    Args:
        got: logits of the candidate.
        expected: logits of the reference, in fp32.
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
