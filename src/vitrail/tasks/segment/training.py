"""A training run that labels pixels: its data, views, loss and metric."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vitrail.data.label_map import LabelMap, label_map
from vitrail.data.masks import MaskSplits
from vitrail.data.sampler import ResumableSampler
from vitrail.models import create_model, find, make_config
from vitrail.parts.decoders.resize import resize_map
from vitrail.parts.decoders.segmenter import Segmenter
from vitrail.parts.model import Model
from vitrail.preprocess import Preprocess
from vitrail.tasks.dense_model import dense_model
from vitrail.tasks.segment.batch import SegmentBatch
from vitrail.tasks.segment.loading import RandomCrops, SegmentLoader, WholeImages
from vitrail.tasks.segment.loss import SegmentLoss, balanced_weights
from vitrail.tasks.segment.metric import SegmentMetric
from vitrail.tasks.segment.options import DECODERS, TrainOptions
from vitrail.tasks.task import RunSpec, Share

Outputs = list[tuple[Tensor, Tensor | None]]
"""Logits and auxiliary logits of each group of images."""


class SegmentTraining:
    """A segmenter bound to a data set with its options.

    Args:
        options: views and loss.
        run: data and model of the run.
        splits: the data set.
    """

    unit = "images"

    def __init__(self, options: TrainOptions, run: RunSpec, splits: MaskSplits):
        self.options, self.run, self.splits = options, run, splits
        self.labels = label_map(splits, options.ignore)
        self.model: Segmenter = build_segmenter(options, run, self.labels)
        self.model.metadata = self.metadata()
        self.preprocess: Preprocess = self.model.preprocess
        weights = balanced_weights(class_counts(splits, self.labels)) if options.class_weights == "balanced" else None
        self.objective = SegmentLoss(weights, options.dice)

    def describe(self) -> str:
        """Return the numbers of images and classes."""
        return f"{len(self.splits.require('train')):,} images with masks, {len(self.labels.names)} classes"

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)

    def loaders(self, share: Share, batch: int, eval_batch: int) -> tuple[SegmentLoader, SegmentLoader]:
        """Return the loaders of training crops and whole validation images."""
        o, train, val = self.options, self.splits.require("train"), self.splits.require("val")
        fill = tuple(round(255 * mean) for mean in self.preprocess.mean)
        scale = (o.scale_min, o.scale_max)
        crops = RandomCrops(self.preprocess.size, o.short_side, scale, o.flip, o.jitter, o.most, fill)
        ranks: Any = {"rank": share.rank, "world": share.size}
        order = ResumableSampler(len(train), batch, share.seed, **ranks)
        still = ResumableSampler(len(val), eval_batch, shuffle=False, drop_last=False, **ranks)
        common: Any = {"labels": self.labels, "preprocess": self.preprocess, "workers": share.workers, "bad": share.bad}
        return (
            SegmentLoader(train, crops, order=order, **common),
            SegmentLoader(val, WholeImages(o.short_side), order=still, **common),
        )

    def transform_batch(self, batch: SegmentBatch, seed: int, step: int) -> SegmentBatch:
        """Return the batch unchanged: everything is drawn sample by sample."""
        return batch

    def forward(self, model: Model, batch: SegmentBatch) -> Outputs:
        """Return the logits of each group of images; in training with those of the auxiliary head."""
        segmenter: Any = model
        if model.training:
            return [segmenter.both(images) for images in batch.images]
        sized = zip(batch.images, batch.masks, strict=True)
        return [(resize_map(segmenter(images).float(), masks.shape[1:]), None) for images, masks in sized]

    def loss(self, outputs: Outputs, batch: SegmentBatch) -> Tensor:
        """Return the mean loss of the labelled pixels, with the auxiliary head's cross-entropy."""
        total = outputs[0][0].float().sum() * 0
        for (logits, auxiliary), classes in zip(outputs, batch.masks, strict=True):
            total = total + self.objective.of(logits, classes)
            if auxiliary is not None:
                total = total + self.options.auxiliary * SegmentLoss(self.objective.weights).of(auxiliary, classes)
        return total / max(batch.pixels, 1)

    def metric(self, device: torch.device) -> SegmentMetric:
        """Return an empty accumulator."""
        return SegmentMetric(len(self.labels.names), self.objective, device)

    def dummy_batch(self, size: int) -> SegmentBatch:
        """Return random crops with random classes."""
        side, channels = self.preprocess.size, self.preprocess.channels
        masks = torch.randint(len(self.labels.names), (size, side, side))
        return SegmentBatch((torch.randn(size, channels, side, side),), (masks,), torch.arange(size), channels)

    def metadata(self) -> dict[str, Any]:
        """Return class names, their numbers in mask files, and the size that images are read at."""
        labels = self.labels
        plain = {"labels": labels.names, "ids": labels.ids, "ignore": labels.ignore}
        return plain | {"short_side": self.options.short_side}

    def meta_model(self) -> Model:
        """Return the segmenter on the meta device."""
        with torch.device("meta"):
            shell: Any = find(self.model.variant).build(self.model.config)
        shell.variant, shell.config, shell.inputs = self.model.variant, self.model.config, self.model.inputs
        return shell


def build_segmenter(options: TrainOptions, run: RunSpec, labels: LabelMap) -> Segmenter:
    """Build the model: a segmenter of the catalogue, or a decoder on a classifier's backbone."""
    name, fields = dense_model(run, "segment", DECODERS[options.decoder], len(labels.names))
    config = make_config(name, **fields)
    if options.imgsz is not None:
        config = replace(config, preprocess=replace(config.preprocess, size=options.imgsz))
    torch.manual_seed(run.seed)
    fields["preprocess"] = replace(config.preprocess, crop=1.0)
    model: Any = create_model(name, weights=run.weights, **fields)
    return model


def class_counts(splits: MaskSplits, labels: LabelMap) -> Tensor:
    """Return the training pixels of each class."""
    train, counts = splits.require("train"), torch.zeros(len(labels.names), dtype=torch.float64)
    for i in range(len(train)):
        classes = torch.from_numpy(labels.encode(train.mask(i), train.ids[i])).long()
        counts += torch.bincount(classes[classes >= 0], minlength=len(counts))
    return counts
