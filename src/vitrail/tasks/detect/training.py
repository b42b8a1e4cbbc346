"""A training run that detects objects: its data, views, losses and metric."""

from typing import Any

import torch
from torch import Tensor

from vitrail.data.boxes.dataset import BoxSplits
from vitrail.data.sampler import ResumableSampler
from vitrail.errors import VitrailError
from vitrail.models import create_model, find
from vitrail.parts.detection.boxes import Boxes
from vitrail.parts.detection.detector import Detector, total
from vitrail.parts.model import Model
from vitrail.tasks.dense_model import dense_model
from vitrail.tasks.detect.batches import BoxBatch, ViewLoader, random_view, still_view
from vitrail.tasks.detect.metric import DetectionMetric, Outputs
from vitrail.tasks.detect.options import TrainOptions
from vitrail.tasks.task import RunSpec, Share


class DetectionTraining:
    """A detector bound to a data set with its options.

    Args:
        options: size and augmentation.
        run: data and model of the run.
        splits: the data set.
    """

    unit = "images"

    def __init__(self, options: TrainOptions, run: RunSpec, splits: BoxSplits):
        self.options, self.run, self.splits = options, run, splits
        self.model = build_detector(options, run, splits)
        self.preprocess = self.model.preprocess
        self.masks = self.model.head.roi_heads.mask_head is not None
        if self.masks:
            check_outlines(splits)

    def describe(self) -> str:
        """Return the numbers of images, objects and classes."""
        train = self.splits.require("train")
        objects = sum(train.counts().values())
        return f"{len(train):,} images, {objects:,} objects, {len(self.splits.classes)} classes"

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)

    def loaders(self, share: Share, batch: int, eval_batch: int) -> tuple[ViewLoader, ViewLoader]:
        """Return the loaders of training and validation batches."""
        train, val, side = self.splits.require("train"), self.splits.require("val"), self.preprocess.size
        ranks: Any = {"rank": share.rank, "world": share.size}
        order = ResumableSampler(len(train), batch, share.seed, **ranks)
        still = ResumableSampler(len(val), eval_batch, shuffle=False, drop_last=False, **ranks)
        views = random_view(share.seed, side, (self.options.scale_min, self.options.scale_max), self.options.flip)
        common: Any = {"masks": self.masks, "bad": share.bad}
        return (
            ViewLoader(train, order, self.preprocess, views, **common),
            ViewLoader(val, still, self.preprocess, still_view(side), **common),
        )

    def transform_batch(self, batch: BoxBatch, seed: int, step: int) -> BoxBatch:
        """Change nothing: views are drawn by the loader."""
        return batch

    def forward(self, model: Model, batch: BoxBatch) -> Outputs:
        """Return the losses, and in evaluation the detections.

        In evaluation images of one padded size share a pass, as in `evaluate_detector`. Anchors are drawn from a
        generator of its own, so that a validation does not change the training.
        """
        if model.training:
            return Outputs(model(batch.images, batch.image_sizes, batch.targets()), [])
        losses: dict[str, Tensor] = {}
        found: dict[int, Boxes] = {}
        for rows, part in batch.by_padded_size():
            with torch.random.fork_rng(devices=[part.images.device] if part.images.is_cuda else []):
                torch.manual_seed(0)
                own, boxes = model(part.images, part.image_sizes, part.targets())
            found.update(zip(rows, boxes, strict=True))
            for name, loss in own.items():
                share = loss * (len(rows) / len(batch.images))
                losses[name] = losses[name] + share if name in losses else share
        return Outputs(losses, [found[row] for row in sorted(found)])

    def loss(self, outputs: Outputs, batch: BoxBatch) -> Tensor:
        """Return the sum of the losses."""
        return total(outputs.losses)

    def metric(self, device: torch.device) -> DetectionMetric:
        """Return an empty accumulator."""
        return DetectionMetric(len(self.splits.classes), device)

    def dummy_batch(self, size: int) -> BoxBatch:
        """Return random images with one box each."""
        side, channels = self.preprocess.size, self.preprocess.channels
        box = torch.tensor([[0.0, 0.0, side / 2, side / 2]])
        return BoxBatch(
            torch.randn(size, channels, side, side),
            torch.full((size, 2), side),
            box.repeat(size, 1),
            torch.zeros(size, dtype=torch.long),
            torch.zeros(size, dtype=torch.bool),
            torch.ones(size, dtype=torch.long),
            torch.ones(size if self.masks else 0, side, side, dtype=torch.uint8),
            torch.arange(size),
        )

    def metadata(self) -> dict[str, Any]:
        """Return the class names."""
        return {"labels": self.splits.classes}

    def meta_model(self) -> Model:
        """Return the detector on the meta device."""
        with torch.device("meta"):
            shell: Any = find(self.model.variant).build(self.model.config)
        shell.variant, shell.config, shell.inputs = self.model.variant, self.model.config, self.model.inputs
        return shell


def build_detector(options: TrainOptions, run: RunSpec, splits: BoxSplits) -> Detector:
    """Build the model: a detector of the catalogue, or one on a classifier's backbone."""
    name, fields = dense_model(run, "detect", options.detector, len(splits.classes))
    if options.imgsz is not None:
        fields["image_size"] = options.imgsz
    torch.manual_seed(run.seed)
    model: Any = create_model(name, weights=run.weights, **fields)
    model.metadata = {"labels": splits.classes}
    return model


def check_outlines(splits: BoxSplits) -> None:
    """Check that every object to learn has an outline.

    Raises:
        VitrailError: one has none.
    """
    for name, part in splits:
        without = [record.id for record in part.records if len(record.boxes) and not record.outlines]
        if without and name != "test":
            raise VitrailError(
                f"{len(without)} images of {part.name} have boxes without outlines, first {without[0]}.\n"
                "A mask head learns from polygons; use --model faster_rcnn for boxes alone."
            )
