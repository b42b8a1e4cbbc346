"""A training run that finds the labels of images: data, augmentation, loss and metric."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from vitrail.data.augment import AUGMENTS
from vitrail.data.datasets import Splits
from vitrail.data.loading import Batch, Loader, eval_loader, train_loader
from vitrail.data.transform import EvalTransform, TrainTransform
from vitrail.errors import VitrailError
from vitrail.models import create_model, find, make_config
from vitrail.native.image_resize import best_pixels
from vitrail.parts.model import Model
from vitrail.tasks.classes.frozen_features import FeatureLoader, frozen_features, logits_of
from vitrail.tasks.multilabel.options import TrainOptions
from vitrail.tasks.multilabel.scores import mean_ap, micro_f1
from vitrail.tasks.task import RunSpec, Share
from vitrail.weights.load import read_source
from vitrail.weights.source_fields import source_fields

TASK_NAME = "multilabel"
_MOST_WEIGHT = 100.0


class LabelLoader:
    """Batches of a loader whose labels are rows of 0 and 1, `(B, K)`.

    Args:
        loader: loader of a `LabelSet`.
    """

    def __init__(self, loader: Loader):
        self.loader, self.dataset = loader, loader.dataset
        if isinstance(loader, FeatureLoader):
            self.rehearse = loader.rehearse
        self.targets: Tensor = loader.dataset.targets  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return self.loader.steps

    @property
    def sample_seconds(self) -> float:
        """Seconds of an image in the whole model, of a loader of features."""
        return getattr(self.loader, "sample_seconds", 0.0)

    @property
    def skipped(self) -> dict[str, str]:
        """Reasons of the images that were left out, by name."""
        return self.loader.skipped

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of this rank from `start_step` on."""
        for batch in self.loader.epoch(epoch, start_step):
            yield batch._replace(labels=self.targets[batch.index.cpu()].to(batch.labels.device))


class LabelMetric:
    """Mean average precision, F1 at 0.5 and loss, exact over all ranks.

    Args:
        samples: samples of the validation.
        classes: number of labels.
        device: device of the sums.
    """

    def __init__(self, samples: int, classes: int, device: torch.device):
        self.scores = torch.zeros(samples, classes, device=device)
        self.truth = torch.zeros(samples, classes, device=device)
        self.loss = torch.zeros(2, dtype=torch.float64, device=device)

    def update(self, outputs: Tensor, batch: Batch) -> None:
        """Add a batch that is not empty."""
        logits, index = outputs.detach().float(), batch.index.to(outputs.device)
        self.scores[index], self.truth[index] = logits.sigmoid(), batch.labels
        loss = binary_cross_entropy_with_logits(logits, batch.labels) * len(logits)
        self.loss += torch.stack([loss.double(), loss.new_tensor(len(logits)).double()])

    def sync(self, all_reduce_sum: Callable[[Tensor], Tensor]) -> None:
        """Join the rows of all ranks; each sample is on one of them."""
        self.scores, self.truth = all_reduce_sum(self.scores), all_reduce_sum(self.truth)
        self.loss = all_reduce_sum(self.loss)

    def compute(self) -> dict[str, float]:
        """Return loss, mean average precision and F1."""
        scores, truth = self.scores.cpu().numpy(), self.truth.cpu().numpy()
        half = torch.full((truth.shape[1],), 0.5).numpy()
        loss = float(self.loss[0] / self.loss[1].clamp_min(1))
        return {"loss": loss, "map": mean_ap(scores, truth), "f1": micro_f1(scores, truth, half)}


class LabelTraining:
    """A multi-label classifier bound to a data set.

    The loss is the mean binary cross-entropy over labels.

    Args:
        options: augmentation and weights of the labels.
        run: data and model of the run.
        splits: the data set.
    """

    unit = "images"
    cached: bool = False

    def __init__(self, options: TrainOptions, run: RunSpec, splits: Splits):
        self.options, self.run, self.splits = options, run, splits
        self.model = build_labeller(options, run, splits)
        self.preprocess = self.model.config.preprocess
        train: Any = splits.require("train")
        positives = train.targets.sum(0)
        weights = ((len(train) - positives) / positives.clamp_min(1)).clamp(max=_MOST_WEIGHT)
        self.weights = weights if options.balance == "weights" else torch.ones_like(weights)

    def describe(self) -> str:
        """Return the numbers of images and labels."""
        once = ", features of the frozen backbone computed once" if self.cached else ""
        return f"{len(self.splits.require('train')):,} images, {len(self.splits.classes)} labels{once}"

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)
        self.weights = self.weights.to(device)

    def loaders(self, share: Share, batch: int, eval_batch: int) -> tuple[LabelLoader, LabelLoader]:
        """Return the loaders of training and validation batches."""
        train, val = self.splits.require("train"), self.splits.require("val")
        common: Any = {"rank": share.rank, "world": share.size, "workers": share.workers, "bad": share.bad}
        common["device"] = share.device
        pixels, augment = best_pixels(len(train)), AUGMENTS[self.options.augment]
        if self.options.flip is not None:
            augment = replace(augment, flip=self.options.flip)
        varied, still = TrainTransform(self.preprocess, augment, pixels), EvalTransform(self.preprocess, pixels)
        both = (
            train_loader(train, varied, batch, seed=share.seed, balanced=False, **common),
            eval_loader(val, still, eval_batch, **common),
        )
        self.cached = frozen_features(self.model, self.options, augment, share)
        if self.cached:
            both = tuple(FeatureLoader(loader, self.model, share.precision) for loader in both)
        return LabelLoader(both[0]), LabelLoader(both[1])

    def transform_batch(self, batch: Batch, seed: int, step: int) -> Batch:
        """Return the batch."""
        return batch

    def forward(self, model: Model, batch: Batch) -> Tensor:
        """Return logits `(B, K)`."""
        return logits_of(model, batch.images)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the mean binary cross-entropy."""
        truth = batch.labels.float() if batch.labels.ndim == 2 else torch.zeros_like(outputs)
        return binary_cross_entropy_with_logits(outputs.float(), truth, pos_weight=self.weights)

    def metric(self, device: torch.device) -> LabelMetric:
        """Return an empty accumulator."""
        return LabelMetric(len(self.splits.require("val")), len(self.splits.classes), device)

    def dummy_batch(self, size: int) -> Batch:
        """Return random images with random labels."""
        channels, side = self.preprocess.channels, self.preprocess.size
        labels = torch.randint(2, (size, len(self.splits.classes))).float()
        return Batch(torch.randn(size, channels, side, side), labels, torch.arange(size))

    def metadata(self) -> dict[str, Any]:
        """Return the names of the labels."""
        return {"labels": self.splits.classes}

    def meta_model(self) -> Model:
        """Return the model on the meta device."""
        with torch.device("meta"):
            shell: Any = find(self.model.variant).build(self.model.config)
        shell.variant, shell.config, shell.task = self.model.variant, self.model.config, TASK_NAME
        shell.preprocess = self.preprocess
        return shell


def build_labeller(options: TrainOptions, run: RunSpec, splits: Splits) -> Model:
    """Build a classifier with one output per label."""
    overrides: dict[str, Any] = {"num_classes": len(splits.classes), **run.overrides}
    if overrides["num_classes"] != len(splits.classes):
        raise VitrailError(f"{splits.name} has {len(splits.classes)} labels; leave num_classes out of --set.")
    if options.imgsz is not None:
        overrides["image_size"] = options.imgsz
    weights = None
    if run.weights is not None:
        weights = read_source(run.weights, run.variant)
        overrides = {**source_fields(weights, make_config(run.variant, **overrides)), **overrides}
    torch.manual_seed(run.seed)
    model = create_model(run.variant, weights=weights, **overrides)
    if getattr(model, "task", "classify") != "classify":
        raise VitrailError(f"{run.variant} does not classify images. `vitrail models` lists those that do.")
    model.task = TASK_NAME
    return model
