"""A training run that classifies point clouds: its sampling, augmentation, loss and metric."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vitrail.data.points.open_points import PointSplits
from vitrail.data.sampler import ResumableSampler
from vitrail.data.stateless_rng import BatchRng
from vitrail.errors import VitrailError
from vitrail.models import create_model, find, list_models, make_config
from vitrail.parts.model import Model
from vitrail.tasks.classes.loss import classification_loss
from vitrail.tasks.classes.metric import ClassificationMetric
from vitrail.tasks.points.augmentation import vary
from vitrail.tasks.points.batches import PointBatch, PointLoader
from vitrail.tasks.points.options import TrainOptions
from vitrail.tasks.task import RunSpec, Share


class PointTraining:
    """A classifier of clouds bound to a data set with its options.

    Args:
        options: sampling and augmentation.
        run: data and model of the run.
        splits: the data set.
    """

    unit = "clouds"
    loader = PointLoader

    def __init__(self, options: TrainOptions, run: RunSpec, splits: PointSplits):
        self.options, self.splits = options, splits
        self.model = build_point_model(options, run, len(splits.classes), "points")
        self.sampling = self.model.sampling

    def describe(self) -> str:
        """Return the numbers of clouds, classes and points."""
        train = len(self.splits.require("train"))
        return f"{train:,} clouds, {len(self.splits.classes)} classes, {self.sampling.points:,} points each"

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)

    def loaders(self, share: Share, batch: int, eval_batch: int) -> tuple[PointLoader, PointLoader]:
        """Return the loaders of training and validation batches."""
        train, val = self.splits.require("train"), self.splits.require("val")
        ranks: Any = {"rank": share.rank, "world": share.size}
        order = ResumableSampler(len(train), batch, share.seed, **ranks)
        fixed = ResumableSampler(len(val), eval_batch, shuffle=False, drop_last=False, **ranks)
        return (
            self.loader(train, order, self.sampling, fixed=False, threads=share.workers),
            self.loader(val, fixed, self.sampling, fixed=True, threads=share.workers),
        )

    def transform_batch(self, batch: PointBatch, seed: int, step: int) -> PointBatch:
        """Rotate, scale, shift and jitter each cloud."""
        return batch._replace(points=vary(batch.points, BatchRng(seed, step, batch.index.numpy()), self.options))

    def forward(self, model: Model, batch: PointBatch) -> tuple[Tensor]:
        """Return class logits."""
        return (model(batch.points),)

    def loss(self, outputs: tuple[Tensor], batch: PointBatch) -> Tensor:
        """Return the mean loss of the clouds."""
        return classification_loss(outputs[0], batch.labels, self.options.smoothing)

    def metric(self, device: torch.device) -> ClassificationMetric:
        """Return an empty accumulator."""
        return ClassificationMetric(len(self.splits.classes), device)

    def dummy_batch(self, size: int) -> PointBatch:
        """Return random clouds with random labels."""
        points = torch.randn(size, self.sampling.points, 3)
        return PointBatch(points, torch.randint(len(self.splits.classes), (size,)), torch.arange(size))

    def metadata(self) -> dict[str, Any]:
        """Return the class names."""
        return {"labels": self.splits.classes}

    def meta_model(self) -> Model:
        """Return the classifier on the meta device."""
        with torch.device("meta"):
            shell: Any = find(self.model.variant).build(self.model.config)
        shell.variant, shell.config, shell.inputs = self.model.variant, self.model.config, self.model.inputs
        return shell


def build_point_model(options: TrainOptions, run: RunSpec, outputs: int, task: str) -> Model:
    """Build a model of a task with its number of outputs and the sampling of the options.

    Raises:
        VitrailError: the model is none of points, reads more than coordinates, or its number of classes was given.
    """
    config: Any = make_config(run.variant, **run.overrides)
    known = ", ".join(list_models(task=task))
    refusal = f"{run.variant} is no model of the task {task}. These are: {known}."
    if not hasattr(config, "sampling"):
        raise VitrailError(refusal)
    if "num_classes" in run.overrides and config.num_classes != outputs:
        raise VitrailError(f"The data has {outputs} classes; leave num_classes out of --set.")
    if config.in_channels != 3:
        raise VitrailError(
            f"in_channels is {config.in_channels}; point files give 3 coordinates. Leave it out of --set."
        )
    given = {"points": options.points, "method": options.sampling}
    sampling = replace(config.sampling, **{key: value for key, value in given.items() if value is not None})
    torch.manual_seed(run.seed)
    fixed = {"num_classes": outputs, "sampling": sampling}
    model: Any = create_model(run.variant, weights=run.weights, **{**run.overrides, **fixed})
    if model.task != task:
        raise VitrailError(refusal)
    return model
