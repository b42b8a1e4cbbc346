"""A training run that classifies images: its data, augmentation, loss and metric."""

from dataclasses import replace
from math import log
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.data.augment import AUGMENTS, Augment
from vitrail.data.datasets import Splits
from vitrail.data.loading import Batch, Loader, eval_loader, train_loader
from vitrail.data.mixup import Mix
from vitrail.data.transform import EvalTransform, TrainTransform
from vitrail.errors import VitrailError
from vitrail.models import create_model, find, make_config
from vitrail.native.image_resize import best_pixels
from vitrail.parts.backbone import Classifier
from vitrail.parts.model import Model
from vitrail.preprocess import Preprocess
from vitrail.tasks.classes.frozen_features import FeatureLoader, frozen_features, logits_of
from vitrail.tasks.classes.metric import ClassificationMetric
from vitrail.tasks.classify.distillation import Teacher, build_objective, load_teacher
from vitrail.tasks.classify.imitation import Imitation
from vitrail.tasks.classify.options import TrainOptions
from vitrail.tasks.task import RunSpec, Share
from vitrail.weights.load import read_source
from vitrail.weights.source_fields import source_fields


class ClassificationTraining:
    """A classifier bound to a data set with its options.

    Args:
        options: augmentation, smoothing and teacher.
        run: data and model of the run.
        splits: the data set.
    """

    unit = "images"
    imitation: Imitation | None = None
    cached: bool = False
    companions: nn.Module | None = None
    """Maps from the student's features to the teacher's: trained and saved with the run, no part of the model."""

    def __init__(self, options: TrainOptions, run: RunSpec, splits: Splits):
        self.options, self.run, self.splits = options, run, splits
        self.model = build_classifier(options, run, splits)
        self.preprocess: Preprocess = self.model.config.preprocess  # pyright: ignore[reportAttributeAccessIssue, reportAssignmentType]
        self.mix = Mix(len(splits.classes), mixup=options.mixup, cutmix=options.cutmix)
        counts = torch.tensor([max(count, 1) for count in splits.require("train").counts().values()])
        self.class_weights = counts.sum() / (len(counts) * counts) if options.balance == "weights" else None
        self.chance = log(max(len(counts), 2))
        self.to(torch.device("cpu"))

    def describe(self) -> str:
        """Return the numbers of images and classes."""
        once = ", features of the frozen backbone computed once" if self.cached else ""
        return f"{len(self.splits.require('train')):,} images, {len(self.splits.classes)} classes{once}"

    def to(self, device: torch.device) -> None:
        """Move the model, and load the teacher there."""
        self.model.to(device)
        weights = None if self.class_weights is None else self.class_weights.to(device)
        teacher = load_teacher(self.options, device, self.preprocess, len(self.splits.classes))
        self.objective = build_objective(self.options, teacher, weights)
        if teacher is not None and self.options.imitates:
            self._imitate(teacher, device)

    def _imitate(self, teacher: Teacher, device: torch.device) -> None:
        """Watch the layers of both models, and make the maps between them: the same ones on every device."""
        if self.imitation is not None:
            self.imitation.close()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.run.seed)
            images = self.dummy_batch(2).images.to(device)
            self.imitation = Imitation(self.options, self.model, teacher.model, images, teacher)
        self.companions = self.imitation.maps.to(device) if len(self.imitation.maps) else None

    def loaders(self, share: Share, batch: int, eval_batch: int) -> tuple[Loader, Loader]:
        """Return the loaders of training and validation batches."""
        train, val = self.splits.require("train"), self.splits.require("val")
        common: Any = {"rank": share.rank, "world": share.size, "workers": share.workers, "bad": share.bad}
        common["device"] = share.device
        pixels = best_pixels(len(train))
        augment = augmentation(self.options, self.run.data, self.splits)
        varied, still = TrainTransform(self.preprocess, augment, pixels), EvalTransform(self.preprocess, pixels)
        both = (
            train_loader(train, varied, batch, seed=share.seed, balanced=self.options.balance == "sampling", **common),
            eval_loader(val, still, eval_batch, **common),
        )
        alone = not self.mix and self.options.teacher is None
        self.cached = alone and frozen_features(self.model, self.options, augment, share)
        if self.cached:
            return FeatureLoader(both[0], self.model, share.precision), FeatureLoader(
                both[1], self.model, share.precision
            )
        return both

    def transform_batch(self, batch: Batch, seed: int, step: int) -> Batch:
        """Mix images and labels; the labels become distributions."""
        images, targets = self.mix(batch.images, batch.labels, seed, step)
        return batch._replace(images=images, labels=targets)

    def forward(self, model: Model, batch: Batch) -> tuple[Any, ...]:
        """Return class logits and distillation logits; the same logits twice in evaluation or without such a head.

        A model with a distillation token has a head with `both`; its two outputs are trained apart and averaged in use.
        If layers of a teacher are imitated, a third output of training is what their losses need.
        """
        if model.training and hasattr(model.head, "both"):
            logits, other = model.head.both(model.features(batch.images))  # pyright: ignore
        else:
            logits = other = logits_of(model, batch.images)
        imitation: Imitation | None = getattr(self, "imitation", None)
        return (logits, other, imitation.outputs()) if imitation and model.training else (logits, other)

    def loss(self, outputs: tuple[Any, ...], batch: Batch) -> Tensor:
        """Return the mean loss of the images."""
        logits, other, *imitated = outputs
        loss = self.objective((logits, other), batch.images, batch.labels)
        if not imitated:
            return loss
        assert self.imitation is not None, "it made these outputs"
        return loss + self.imitation.loss(imitated[0], batch.images)

    def metric(self, device: torch.device) -> ClassificationMetric:
        """Return an empty accumulator."""
        return ClassificationMetric(len(self.splits.classes), device)

    def dummy_batch(self, size: int) -> Batch:
        """Return random images with random labels."""
        channels, side = self.preprocess.channels, self.preprocess.size
        images = torch.randn(size, channels, side, side)
        return Batch(images, torch.randint(len(self.splits.classes), (size,)), torch.arange(size))

    def metadata(self) -> dict[str, Any]:
        """Return the class names."""
        return {"labels": self.splits.classes}

    def meta_model(self) -> Classifier:
        """Return the classifier on the meta device."""
        with torch.device("meta"):
            shell: Any = find(self.model.variant).build(self.model.config)  # pyright: ignore
        shell.variant, shell.config = self.model.variant, self.model.config
        shell.preprocess = self.preprocess
        return shell


def build_classifier(options: TrainOptions, run: RunSpec, splits: Splits) -> Classifier:
    """Build the model with one output per class and the preprocessing that fits the images."""
    overrides: dict[str, Any] = {"num_classes": len(splits.classes), **run.overrides}
    if overrides["num_classes"] != len(splits.classes):
        raise VitrailError(f"{splits.name} has {len(splits.classes)} classes; leave num_classes out of --set.")
    if options.imgsz is not None:
        overrides["image_size"] = options.imgsz
    config, weights = make_config(run.variant, **overrides), None
    if run.weights is not None:
        weights = read_source(run.weights, run.variant)
        overrides = {**source_fields(weights, config), **overrides}
        config = make_config(run.variant, **overrides)
    overrides.pop("image_size", None)
    overrides["preprocess"] = adapt_preprocess(config.preprocess, config.in_channels, splits)
    torch.manual_seed(run.seed)
    model: Any = create_model(run.variant, weights=weights, **overrides)
    return model


def adapt_preprocess(preprocess: Preprocess, channels: int, splits: Splits) -> Preprocess:
    """Adapt a variant's preprocessing to grayscale images, and to small ones, which are not cropped."""
    if preprocess.channels != channels:
        mean, std = (sum(values) / len(values) for values in (preprocess.mean, preprocess.std))
        preprocess = replace(preprocess, mean=(mean,) * channels, std=(std,) * channels)
    pixels = splits.require("train").pixels
    if pixels is not None and max(pixels.shape[-2:]) <= preprocess.size:
        preprocess = replace(preprocess, crop=1.0)
    return preprocess


def augmentation(options: TrainOptions, data: str, splits: Splits) -> Augment:
    """Return the augmentation: a preset, changed by the options given."""
    name = options.augment
    if name == "auto":
        small = splits.require("train").pixels is not None
        name = "digits" if data == "digits" else "small" if small else "photo"
    chosen = AUGMENTS[name]
    if options.randaugment is not None:
        policy = "rand" if options.randaugment else "none"
        chosen = replace(chosen, policy=policy, magnitude=options.randaugment)
    if options.crop_min is not None:
        chosen = replace(chosen, crop="resized", scale=(options.crop_min, 1.0))
    if options.erasing is not None:
        chosen = replace(chosen, erase=options.erasing)
    return chosen if options.flip is None else replace(chosen, flip=options.flip)
