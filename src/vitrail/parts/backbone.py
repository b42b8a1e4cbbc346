"""Backbone: embedding, stages, norm; and the classifier with a head."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.preprocess import Preprocess
from vitrail.shapes import Image


class Features(NamedTuple):
    """Output of a backbone, in one layout for every architecture.

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


class ModelKind(NamedTuple):
    """What a model card calls the models of a task.

    Args:
        noun: such as `An image classifier`.
        pipeline_tag: name of the task on the Hugging Face hub, or nothing.
        metric_names: the hub's names of metrics, by ours.
        titles: titles of metadata in the card's table.
    """

    noun: str = "A model"
    pipeline_tag: str = ""
    metric_names: Mapping[str, str] = MappingProxyType({})
    titles: Mapping[str, str] = MappingProxyType({})


class Model(nn.Module):
    """A backbone and a head, with what the tools know of it.

    Args:
        backbone: `inputs -> Features`.
        head: `Features -> outputs`.

    Attributes:
        task: name of its task.
        variant: name in the catalogue that it was made from.
        config: the frozen numbers that it was built with.
        metadata: plain values of its task, such as class names; a model folder holds them.
    """

    kind: ClassVar[ModelKind] = ModelKind()
    task: str = ""
    variant: str = ""
    config: Any = None
    metadata: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs of the head."""
        return self.head(self.backbone(inputs))

    def plain_metadata(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return metadata as a model folder states it.

        Raises:
            VitrailError: it does not fit the model.
        """
        return dict(metadata)


class Classifier(Model):
    """A backbone and a head: images in, one score per class out.

    Args:
        backbone: `images -> Features`.
        head: `Features -> (B, K)`.

    Attributes:
        labels: class names, if known; kept in `metadata`.
        preprocess: preprocessing of its images in evaluation.
    """

    kind: ClassVar[ModelKind] = ModelKind(
        "An image classifier",
        "image-classification",
        MappingProxyType({"top1": "accuracy", "top-1": "accuracy"}),
        MappingProxyType({"labels": "classes"}),
    )
    task: str = "classify"
    preprocess: Preprocess = Preprocess()

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Class names, or None."""
        return self.metadata.get("labels")

    @labels.setter
    def labels(self, names: Sequence[str] | None) -> None:
        self.metadata = {**self.metadata, "labels": None if names is None else tuple(names)}

    def plain_metadata(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return the number of classes, their names, and what else there is."""
        labels, classes = metadata.get("labels"), getattr(self.config, "num_classes", None)
        if labels is not None and classes is not None and len(labels) != classes:
            raise VitrailError(
                f"Got {len(labels)} labels for a model of {classes} classes. Give one name a class, in order."
            )
        names = None if labels is None else [str(label) for label in labels]
        return {"num_classes": classes, "labels": names} | {
            key: value for key, value in metadata.items() if key not in ("num_classes", "labels")
        }

    def features(self, images: Image) -> Features:
        """Return tokens, grid and pyramid."""
        return self.backbone(images)

    def forward(self, images: Image) -> Tensor:
        """Return logits `(B, K)`."""
        return self.head(self.backbone(images))
