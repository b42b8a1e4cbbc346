"""The socket: embedding, stages, norm; and the classifier that plugs a head into it."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor, nn

from vitrail.preprocess import Preprocess
from vitrail.shapes import Image


class Features(NamedTuple):
    """What a backbone says of images, in one layout for every architecture.

    Args:
        tokens: `(B, N, C)`, normalised, prefix tokens first.
        grid: layout of the tokens, a `Grid` for images and a `TokenSequence` for text.
        pyramid: one `(B, H, W, C)` map a stage, finest first, as the stage left it (not normalised).
    """

    tokens: Tensor
    grid: Any
    pyramid: tuple[Tensor, ...]


class Backbone(nn.Module):
    """Images in, features out.

    Args:
        embedding: `images -> (x, grid)`.
        stages: each `(x, grid) -> (x, grid)`.
        norm: after the last stage, `x -> x`.
    """

    def __init__(self, embedding: nn.Module, stages: Iterable[nn.Module], norm: nn.Module):
        super().__init__()
        self.embedding = embedding
        self.stages = nn.ModuleList(stages)
        self.norm = norm

    def forward(self, images: Image) -> Features:
        """Embed, pass the stages, normalise."""
        x, grid = self.embedding(images)
        pyramid = []
        for stage in self.stages:
            x, grid = stage(x, grid)
            pyramid.append(grid.cells(x))
        return Features(self.norm(x), grid, tuple(pyramid))


class Classifier(nn.Module):
    """A backbone and a head: images in, one score a class out.

    Args:
        backbone: `images -> Features`.
        head: `Features -> (B, K)`.

    Attributes:
        variant: name in the catalogue that the model was made from.
        config: the frozen numbers it was built with.
        labels: class names, when known.
        preprocess: how its images are prepared for evaluation.
    """

    variant: str = ""
    config: Any = None
    labels: tuple[str, ...] | None = None
    preprocess: Preprocess = Preprocess()

    def __init__(self, backbone: Backbone, head: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def features(self, images: Image) -> Features:
        """Return tokens, grid and pyramid."""
        return self.backbone(images)

    def forward(self, images: Image) -> Tensor:
        """Return logits `(B, K)`."""
        return self.head(self.backbone(images))
