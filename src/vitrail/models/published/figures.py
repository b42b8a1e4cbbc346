"""Published figures of one variant: size, cost and accuracy of its released weights."""

from typing import NamedTuple


class Published(NamedTuple):
    """Published figures of one variant.

    Args:
        pixels: side of the image, as in the variant's own preprocessing.
        parameters: exact number of parameters with the variant's own classes (1000; 21k if the name says so).
        multiply_adds: exact number for one image of that size, attention products included (some tables leave them
            out and show less).
        top1: ImageNet-1k validation accuracy that timm measured (`results/results-imagenet.csv` in its repository)
            with `weights` under the variant's own preprocessing; None if it measured none.
        weights: timm's tag of the released weights.
        note: figures of the authors ("paper", "official": their repository) and of others.
        family: module of `vitrail.models` that builds it; filled in by the catalogue.
    """

    pixels: int
    parameters: int
    multiply_adds: int
    top1: float | None = None
    weights: str = ""
    note: str = ""
    family: str = ""

    @property
    def gmacs(self) -> float:
        """Multiply-adds in units of 10^9, as in the papers' tables."""
        return round(self.multiply_adds / 1e9, 3)
