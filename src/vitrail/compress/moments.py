"""Mean and covariance of the inputs of layers, over all tokens of some data."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitrail.compress.calibration_data import CalibrationBatch
from vitrail.compress.gates import watched
from vitrail.tasks.inference import evaluating

FEW = 5.0
"""Weight of the ridge. With 16 views of 8 photographs 0.01 overfits a ViT-Ti; with 128 digits 0.01 to 10 are alike."""


class InputMoments(NamedTuple):
    """Mean and covariance of a layer's input.

    Args:
        mean: `(C,)`, in fp64.
        covariance: `(C, C)`, in fp64.
        rows: number of tokens.
    """

    mean: Tensor
    covariance: Tensor
    rows: int

    @property
    def second(self) -> Tensor:
        """Mean outer product, without removing the mean."""
        return self.covariance + self.mean[:, None] * self.mean

    def ridge(self, matrix: Tensor) -> float:
        """Return an addend for the diagonal, larger where tokens are few: those of one image are much alike."""
        few = FEW * len(matrix) / max(self.rows, 1)
        return float(matrix.diagonal().mean()) * max(1e-6, few) + 1e-12


def input_moments(
    model: nn.Module, layers: Iterable[str], probes: Sequence[CalibrationBatch]
) -> dict[str, InputMoments]:
    """Return the moments of the input of each layer, by its name; a layer that is never called has none.

    Example:
        >>> layer = nn.Sequential(nn.Identity())
        >>> x = torch.tensor([[1.0], [3.0]])
        >>> moments = input_moments(layer, ["0"], [CalibrationBatch(lambda model: model(x))])["0"]
        >>> moments.mean.item(), moments.covariance.item(), moments.rows
        (2.0, 1.0, 2)
    """
    sums: dict[str, tuple[Tensor, Tensor, int]] = {}

    def add(name: str, x: Tensor) -> None:
        flat = x.flatten(0, -2).double()
        total, outer, rows = sums.get(name, (0, 0, 0))
        sums[name] = total + flat.sum(0), outer + flat.T @ flat, rows + len(flat)

    with torch.no_grad(), evaluating(model), watched(model, dict.fromkeys(layers, 1), add):
        for probe in probes:
            probe.run(model)
    found = {}
    for name, (total, outer, rows) in sums.items():
        mean = total / rows
        found[name] = InputMoments(mean, outer / rows - mean[:, None] * mean, rows)
    return found
