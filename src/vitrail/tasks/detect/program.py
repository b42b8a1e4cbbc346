"""The program of a detector: boxes, scores and classes of a fixed number of detections, suppression included."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vitrail.parts.detection.boxes import Boxes
from vitrail.parts.detection.fixed_size import FixedSizeDetector
from vitrail.parts.model import Model
from vitrail.tasks.program import ProgramSpec, Sizes, TensorSpec, image_axes

MATCHED = 0.95
"""Share of the detections that must have a partner in the other runtime."""
_NEAR = 1e-3
"""Largest difference of scores, and of boxes as a share of the largest coordinate, of two that are partners."""


def detection_program(model: Model) -> ProgramSpec:
    """Return what an exported detector takes and gives; the images are padded at the end to one size.

    Example:
        >>> from vitrail.models import create_model
        >>> with torch.device("meta"):
        ...     spec = detection_program(create_model("faster_rcnn", num_classes=3))
        >>> [f"{each.name} {each.shape}" for each in spec.outputs]
        ["boxes ('batch', 100, 4)", "scores ('batch', 100)", "labels ('batch', 100)"]
    """
    head: Any = model.head
    heads, config = head.roi_heads, model.config
    most = heads.detections_per_img
    images = TensorSpec("images", ("batch", config.in_channels, "height", "width"))
    outputs = [
        TensorSpec("boxes", ("batch", most, 4)),
        TensorSpec("scores", ("batch", most)),
        TensorSpec("labels", ("batch", most), dtype="int64"),
    ]
    if heads.mask_head is not None:
        outputs.append(TensorSpec("masks", ("batch", most, 28, 28)))

    # below a patch OpenVINO returns no row for an image: small sizes are between a patch and the coarsest stride
    height, width = image_axes(model.preprocess.size)

    def draw(sizes: Sizes, generator: torch.Generator) -> tuple[Tensor, ...]:
        full = torch.tensor([sizes["height"], sizes["width"]])
        less = torch.randint(0, 9, (sizes["batch"], 2), generator=generator)
        return torch.randn(images.dims(sizes), generator=generator), full - less

    return ProgramSpec(
        FixedSizeDetector(model),
        (images, TensorSpec("sizes", ("batch", 2), dtype="int64")),
        tuple(outputs),
        (replace(height, small=(17, 31)), replace(width, small=(width.own, 29))),
        draw,
        encode,
        decode,
        agree=agree,
    )


def encode(images: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> tuple[Tensor, Tensor]:
    """Return the inputs of a call of the model.

    Example:
        >>> encode(torch.zeros(1, 3, 32, 64))[1].tolist()
        [[32, 64]]
    """
    own = [images.shape[2:]] * len(images) if sizes is None else sizes
    return images, torch.as_tensor([[int(y), int(x)] for y, x in own], dtype=torch.long).reshape(-1, 2)


def decode(values: tuple[Tensor, ...]) -> list[Boxes]:
    """Return the detections of each image; entries with a score of 0 are none.

    Example:
        >>> found = decode((torch.ones(1, 2, 4), torch.tensor([[0.9, 0.0]]), torch.tensor([[3, 0]])))
        >>> found[0].labels.tolist()
        [3]
    """
    return [Boxes(*(part[row[1] > 0] for part in row)) for row in zip(*values, strict=True)]


def agree(got: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> tuple[float, bool]:
    """Compare detections as sets, image by image: those of one class, a box and a score are partners.

    Two boxes that overlap by just the limit, or whose scores differ in the last bit only, may change places, so all but
    a few detections need a partner, and the error is the largest difference of two partners.

    Example:
        >>> found = torch.zeros(1, 1, 4), torch.tensor([[0.9]]), torch.zeros(1, 1).long()
        >>> agree(found, found), agree(found, (found[0], torch.tensor([[0.5]]), found[2]))
        ((0.0, True), (0.0, False))
    """
    error, matched, total = 0.0, 0, 0
    for ours, theirs in zip(decode(got), decode(want), strict=True):
        total += max(len(ours.scores), len(theirs.scores))
        if not len(ours.scores) or not len(theirs.scores):
            continue
        boxes = (ours.boxes[:, None] - theirs.boxes).abs().amax(-1) / theirs.boxes.abs().max().clamp(min=1)
        gap = torch.maximum(boxes, (ours.scores[:, None] - theirs.scores).abs())
        gap = torch.where(ours.labels[:, None] == theirs.labels, gap, torch.inf).amin(dim=0)
        near = gap <= _NEAR
        matched += int(near.sum())
        error = max(error, float(gap[near].max()) if near.any() else 0.0)
    return error, matched >= MATCHED * total
