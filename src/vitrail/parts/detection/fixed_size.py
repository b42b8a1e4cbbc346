"""A detector whose steps have fixed sizes: as many proposals and detections of each image, those that are none marked.

It computes what `Detector` does. There the number of boxes changes from step to step and image to image; here each step
has its largest number, and an entry that is no box has a negative score. So it is one program for every batch.
"""

from collections.abc import Sequence
from math import log2
from typing import Any

import torch
from torch import SymInt, Tensor, nn
from torch.nn.functional import pad
from torchvision.ops import roi_align

from vitrail.parts.detection.region_pooling import scales_of
from vitrail.parts.detection.suppression import suppress
from vitrail.parts.model import Model


class FixedSizeDetector(nn.Module):
    """Images and their sizes to boxes `(B, D, 4)`, scores `(B, D)`, labels `(B, D)` and masks `(B, D, 28, 28)` if any.

    Args:
        detector: the detector, in evaluation mode.
    """

    def __init__(self, detector: Model):
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Return the detections of each image, best first; a score of 0 marks an entry that is none.

        Args:
            images: `(B, C, Y, X)`, padded at the end to one size.
            sizes: `(B, 2)` rows and columns of each image without its padding.
        """
        head: Any = self.detector.head
        levels = list(head.levels(self.detector.backbone(images)).values())
        corner = sizes.flip(1).repeat(1, 2)[:, None].to(images.dtype)  # (B, 1, 4): largest x, y, x, y
        boxes, scores = _proposals(head.rpn, levels, images, corner)
        pooled = [*zip(levels, scales_of(head.maps.strides), strict=False)]
        boxes, scores, labels = _detections(head.roi_heads, pooled, boxes, scores, corner)
        found = boxes, scores.clamp(min=0), labels
        if head.roi_heads.mask_head is None:
            return found
        return (*found, _masks(head.roi_heads, pooled, boxes, labels))


def _proposals(rpn: Any, levels: list[Tensor], images: Tensor, corner: Tensor) -> tuple[Tensor, Tensor]:
    """Return `(B, P, 4)` proposals and `(B, P)` scores: the best of each level, suppressed level by level."""
    before, after = rpn._pre_nms_top_n["testing"], rpn._post_nms_top_n["testing"]
    boxes, scores = [], []
    objectness, offsets = rpn.head(levels)
    generator = rpn.anchor_generator
    for number, (level, logits, moves) in enumerate(zip(levels, objectness, offsets, strict=True)):
        anchors = pad(_anchors(generator.cell_anchors[number], level, images), (0, 0, 0, before))
        ratios = logits.shape[1]
        flat = pad(logits.permute(0, 2, 3, 1).flatten(1), (0, before), value=-torch.inf)  # (B, h w A + before)
        moved = moves.unflatten(1, (ratios, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
        best = flat.topk(before, dim=1)
        rows = best.indices[..., None].expand(-1, -1, 4)
        chosen = pad(moved, (0, 0, 0, before)).gather(1, rows)
        decoded = rpn.box_coder.decode_single(chosen.flatten(0, 1), anchors[best.indices].flatten(0, 1))
        clipped = decoded.unflatten(0, (-1, before)).clamp(min=0).minimum(corner)
        real = _is_box(clipped, rpn.min_size) & best.values.isfinite()
        boxes.append(clipped)
        scores.append(torch.where(real, best.values.sigmoid(), -1.0))
    grouped, own = torch.stack(boxes, dim=1), torch.stack(scores, dim=1)  # (B, L, n, 4), (B, L, n)
    return _kept(grouped, own, rpn.nms_thresh, after)[:2]


def _detections(
    heads: Any, levels: Sequence[tuple[Tensor, float]], proposals: Tensor, scores: Tensor, corner: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes `(B, D, 4)`, scores and class numbers `(B, D)` of the best detections, suppressed class by class."""
    count = proposals.shape[1]
    pooled = _pool(levels, proposals, heads.box_roi_pool)
    logits, moves = heads.box_predictor(heads.box_head(pooled))
    decoded = heads.box_coder.decode_single(moves, proposals.flatten(0, 1))
    boxes = decoded.unflatten(0, (-1, count)).unflatten(2, (-1, 4)).clamp(min=0).minimum(corner[:, None])[:, :, 1:]
    own = logits.softmax(dim=-1).unflatten(0, (-1, count))[..., 1:]  # (B, P, K); the background is class 0
    real = (scores[..., None] >= 0) & (own > heads.score_thresh) & _is_box(boxes, 1e-2)
    own = torch.where(real, own, -1.0)
    boxes, own, place = _kept(boxes.transpose(1, 2), own.transpose(1, 2), heads.nms_thresh, heads.detections_per_img)
    return boxes, own, torch.div(place, count, rounding_mode="floor")


def _masks(heads: Any, levels: Sequence[tuple[Tensor, float]], boxes: Tensor, labels: Tensor) -> Tensor:
    """Return the mask `(B, D, 28, 28)` of each detection, inside its box."""
    logits = heads.mask_predictor(heads.mask_head(_pool(levels, boxes, heads.mask_roi_pool)))  # (B D, K + 1, 28, 28)
    own = (labels.flatten() + 1)[:, None, None, None].expand(-1, 1, *logits.shape[2:])
    return logits.sigmoid().gather(1, own)[:, 0].unflatten(0, (-1, boxes.shape[1]))


def _kept(boxes: Tensor, scores: Tensor, overlap: float, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Suppress the boxes `(B, G, N, 4)` of each group; return the best `count` of all groups, and their places."""
    groups = boxes.shape[1]
    kept = suppress(boxes.flatten(0, 1), scores.flatten(0, 1), overlap).unflatten(0, (-1, groups))
    best = torch.where(kept, scores, -1.0).flatten(1).topk(count, dim=1)
    return boxes.flatten(1, 2).gather(1, best.indices[..., None].expand(-1, -1, 4)), best.values, best.indices


def _is_box(boxes: Tensor, least: float) -> Tensor:
    return ((boxes[..., 2:] - boxes[..., :2]) >= least).all(dim=-1)


def _anchors(cell: Tensor, level: Tensor, images: Tensor) -> Tensor:
    """Return the anchors `(h w A, 4)` of a level, in the order of torchvision's."""
    rows, columns = (_steps(level.shape[axis], images.shape[axis], level.device).to(cell.dtype) for axis in (2, 3))
    y, x = (part.flatten() for part in torch.meshgrid(rows, columns, indexing="ij"))
    return (torch.stack([x, y, x, y], dim=1)[:, None] + cell).flatten(0, 1)


def _steps(cells: int | SymInt, pixels: int | SymInt, device: torch.device) -> Tensor:
    """Return the first pixel of each cell; sizes that meet tensors are computed as tensors, for exporters."""
    places, all_pixels = torch.arange(cells, device=device), torch.arange(pixels, device=device)
    return places * torch.div(all_pixels[-1] + 1, places[-1] + 1, rounding_mode="floor")


def _pool(levels: Sequence[tuple[Tensor, float]], boxes: Tensor, pool: Any) -> Tensor:
    """Return the features `(B P, C, s, s)` of boxes `(B, P, 4)`, each from the level of its size.

    "Feature Pyramid Networks for Object Detection", equation 1. Each level is read for all boxes, and the right one is
    taken, since the number of boxes of a level is not fixed.
    """
    flat = boxes.flatten(0, 1)
    images = torch.arange(boxes.shape[0], device=boxes.device)[:, None].expand(boxes.shape[:2]).flatten()
    rois = torch.cat([images[:, None].to(flat.dtype), flat], dim=1)
    area = (flat[:, 2] - flat[:, 0]) * (flat[:, 3] - flat[:, 1])
    first, last = (-log2(scale) for _, scale in (levels[0], levels[-1]))
    wanted = (4 + torch.log2(area.sqrt() / 224) + 1e-6).floor().clamp(first, last) - first
    found = torch.zeros(())
    for number, (level, scale) in enumerate(levels):
        read = roi_align(level, rois, pool.output_size, scale, pool.sampling_ratio)
        found = read if not number else torch.where((wanted == number)[:, None, None, None], read, found)
    return found
