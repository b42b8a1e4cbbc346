"""Published figures of one variant: size, cost and accuracy of its released weights."""

from typing import NamedTuple


class Published(NamedTuple):
    """Published figures of one variant.

    Args:
        pixels: side of the image, as in the variant's own preprocessing; None for text.
        parameters: exact number of parameters with the variant's own classes (1000; 21k if the name says so).
        multiply_adds: exact number for one image of that size, or one text of `tokens` tokens (a translation: source
            and target), attention products included (some tables leave them out and show less).
        top1: ImageNet-1k validation accuracy that timm measured (`results/results-imagenet.csv` in its repository)
            with `weights` under the variant's own preprocessing; None if it measured none.
        weights: timm's tag of the released weights.
        note: figures of the authors ("paper", "official": their repository) and of others.
        family: module of `vitrail.models` that builds it; filled in by the catalogue.
        task: task that the published weights were trained for.
        tokens: length of the text that multiply-adds are counted at; None for images.
    """

    pixels: int | None
    parameters: int
    multiply_adds: int
    top1: float | None = None
    weights: str = ""
    note: str = ""
    family: str = ""
    task: str = "classify"
    tokens: int | None = None

    @property
    def gmacs(self) -> float:
        """Multiply-adds in units of 10^9, as in the papers' tables."""
        return round(self.multiply_adds / 1e9, 3)


def text(parameters: int, multiply_adds: int, task: str, note: str = "") -> Published:
    """Return the figures of a text model, counted at 128 tokens."""
    return Published(None, parameters, multiply_adds, note=note, task=task, tokens=128)


def points(parameters: int, multiply_adds: int, note: str = "", task: str = "points") -> Published:
    """Return the figures of a model of point clouds, counted at 1,024 points, each of which is a token."""
    return Published(None, parameters, multiply_adds, note=note, task=task, tokens=1024)
