"""The interface of every model of the catalogue: task, config, inputs, metadata, and its layers in order."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from torch import nn

from vitrail.errors import VitrailError
from vitrail.inputs import ModelInputs
from vitrail.preprocess import Preprocess

HINTS = {
    "forward_features": "Use model.features(images): tokens, grid and a pyramid of maps.",
    "forward_head": "Use model.head(model.features(images)).",
    "forward_intermediates": "Use model.features(images).pyramid.",
    "get_intermediate_layers": "Use model.features(images).pyramid.",
    "reset_classifier": "Create it with the classes: create_model(name, num_classes=n, weights=...) starts a new head.",
    "get_classifier": "It is model.head.",
    "num_classes": "It is model.config.num_classes.",
    "num_features": "It is the width of model.features(images).tokens.",
    "default_cfg": "The config is model.config, the preprocessing model.preprocess.",
    "pretrained_cfg": "The config is model.config, the preprocessing model.preprocess.",
    "from_pretrained": "Use vitrail.create_model(name, pretrained=True) or vitrail.load_model(folder).",
    "save_pretrained": "Use vitrail.save_model(model, folder).",
    "push_to_hub": "Use vitrail.save_model(model, folder), then vitrail.weights.hub.push(folder, 'hf:me/name').",
    "id2label": "The class names are model.labels.",
    "names": "The class names are model.labels.",
    "predict": "Use vitrail.predict(model, images).",
    "val": "Use vitrail.evaluate(model, data).",
    "export": "Use torch.export.export(model, (images,)).",
}
"""Attributes of models of timm, transformers and Ultralytics, with ours."""


class ModelKind(NamedTuple):
    """Words of the model card for the models of a task.

    Args:
        noun: such as `An image classifier`.
        pipeline_tag: name of the task on the Hugging Face hub, or nothing.
        metric_names: the hub's names of metrics, by ours.
        titles: titles of metadata in the card's table.
        example: line of code that uses a loaded `model`.
    """

    noun: str = "A model"
    pipeline_tag: str = ""
    metric_names: Mapping[str, str] = MappingProxyType({})
    titles: Mapping[str, str] = MappingProxyType({})
    example: str = ""


class ModelLayer(NamedTuple):
    """One layer of a model: the unit of layer-wise learning rates, freezing and FSDP.

    Args:
        stage: 0 for the embedding, n for the n-th stage; the last layer (norm and head) has the largest number.
        modules: the modules of the layer; between embedding and head, the last one is what FSDP gathers as a unit.
    """

    stage: int
    modules: list[nn.Module]


class Model(nn.Module):
    """Base of all models: inputs in, outputs of a task out.

    Attributes:
        kinds: words of the model card, by task.
        described: names of small buffers that are read outside the forward pass; an exported file states them.
        inputs_type: type of `inputs` if they are no field of the config, such as a vocabulary.
        task: name of its task.
        variant: name in the catalogue that it was made from.
        config: the frozen numbers that it was built with.
        inputs: value that turns raw data into its inputs, or None; a model folder holds it as a file.
        metadata: plain values of its task, such as class names; a model folder holds them.
        edits: changes since it was built from its config (`vitrail.edits`), in order; a model folder states them.
        backbone: all but the head.
        head: the part that is new for another task.
    """

    kinds: ClassVar[Mapping[str, ModelKind]] = MappingProxyType({})
    inputs_type: ClassVar[type[ModelInputs] | None] = None
    described: ClassVar[tuple[str, ...]] = ()
    task: str = ""
    variant: str = ""
    config: Any = None
    inputs: Any = None
    metadata: Mapping[str, Any] = MappingProxyType({})
    edits: tuple[Any, ...] = ()
    backbone: nn.Module
    head: nn.Module

    def __getattr__(self, name: str) -> Any:
        """Return a module or parameter; of a name from another library, say what it is here."""
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            if name in HINTS:
                raise AttributeError(f"{type(self).__name__} has no '{name}'. {HINTS[name]}") from None
            raise error

    @property
    def kind(self) -> ModelKind:
        """Words of the model card for the model's task."""
        return self.kinds.get(self.task, ModelKind(f"A model of the task {self.task}" if self.task else "A model"))

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Class names in `metadata`, or None."""
        return self.metadata.get("labels")

    @labels.setter
    def labels(self, names: Sequence[str] | None) -> None:
        self.metadata = {**self.metadata, "labels": None if names is None else tuple(names)}

    def plain_metadata(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return metadata as a model folder states it.

        Raises:
            VitrailError: it does not fit the model.
        """
        labels, classes = metadata.get("labels"), getattr(self.config, "num_classes", None)
        if labels is not None and classes is not None and len(labels) != classes:
            raise VitrailError(
                f"Got {len(labels)} labels for a model of {classes} classes. Give one name a class, in order."
            )
        plain = {key: value for key, value in metadata.items() if key != "labels"}
        return plain if labels is None else {**plain, "labels": [str(label) for label in labels]}

    def layers(self) -> list[ModelLayer]:
        """List the layers from input to output: the embedding, each block, and last norm and head.

        A model without `backbone.embedding`, `.stages` and `.norm` overrides it. Every parameter is in some layer.

        Example:
            >>> from vitrail.models import create_model
            >>> [layer.stage for layer in create_model("vit_tiny_patch16_224", depth=3).layers()]
            [0, 1, 1, 1, 2]
        """
        backbone: Any = self.backbone
        order = [ModelLayer(0, [backbone.embedding])]
        for number, stage in enumerate(backbone.stages, 1):
            order += stage_layers(stage, number)
        return [*order, ModelLayer(len(backbone.stages) + 1, [backbone.norm, self.head])]


class ImageModel(Model):
    """A model of images, whose inputs are a `Preprocess`."""

    inputs: Preprocess | None = None

    @property
    def preprocess(self) -> Preprocess:
        """Preprocessing of its images in evaluation: `inputs`, or the default if there is none."""
        return self.inputs or Preprocess()

    @preprocess.setter
    def preprocess(self, preprocess: Preprocess) -> None:
        self.inputs = preprocess


def stage_layers(stage: nn.Module, number: int) -> list[ModelLayer]:
    """List the layers of a stage, one for each of its `blocks`.

    The entry of a stage belongs to its first block, its other parts (exit, convolution) to its last one. Without blocks
    they are a layer of their own.

    Args:
        stage: a module with `blocks`, and maybe `entry` and others.
        number: number of the stage in the model, from 1.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=3)
        >>> len(stage_layers(model.backbone.stages[0], 1))
        3
    """
    parts = dict(stage.named_children())
    blocks: Any = [*parts.pop("blocks", [])]  # pyright: ignore[reportGeneralTypeIssues]
    entry = [parts.pop("entry")] if "entry" in parts else []
    if not blocks:
        return [ModelLayer(number, [*parts.values(), *entry])]
    order = [ModelLayer(number, [block]) for block in blocks]
    order[0].modules[:0] = entry
    order[-1].modules[:0] = parts.values()
    return order
