"""Batch of images with class indices for each pixel."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vitrail.data.label_map import IGNORE


class SegmentBatch(NamedTuple):
    """Images and masks, grouped by size: nothing is padded, so no figure depends on the company of an image.

    Args:
        images: groups of equal size, each `(b, C, Y, X)`, normalised.
        masks: class indices of each group, `(b, Y', X')`; `IGNORE` never counts. The sides are those of the stored
            mask, which may differ from those of the image in validation.
        index: sample numbers, group by group.
        channels: channels of the images, if there is none.
    """

    images: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]
    channels: int = 3

    @property
    def weight(self) -> float:
        """Labelled images: an image counts by the labelled share of its pixels."""
        return sum(float((mask != IGNORE).sum()) / (mask.shape[1] * mask.shape[2]) for mask in self.masks)

    @property
    def pixels(self) -> int:
        """Number of labelled pixels."""
        return sum(int((mask != IGNORE).sum()) for mask in self.masks)

    def to(self, device: torch.device) -> "SegmentBatch":
        """Move images and masks to a device."""
        images, masks = (tuple(x.to(device, non_blocking=True) for x in group) for group in (self.images, self.masks))
        return self._replace(images=images, masks=masks)

    def split(self, count: int) -> list[tuple[float, "SegmentBatch"]]:
        """Cut into at most `count` micro-batches of whole images, each with its share of the weight."""
        singles = [(x[i], m[i]) for x, m in zip(self.images, self.masks, strict=True) for i in range(len(x))]
        rows = zip(singles, self.index.tolist(), strict=True)
        chunks = torch.arange(len(singles)).tensor_split(count)
        samples = list(rows)
        parts = [grouped([samples[i] for i in chunk.tolist()], self.channels) for chunk in chunks if len(chunk)]
        whole = self.weight
        return [(part.weight / whole if whole else 1.0 / len(parts), part) for part in parts]

    def placeholder(self) -> "SegmentBatch":
        """Return one black image without labels, which replaces an empty batch in a forward pass."""
        if self.images:
            image, mask = self.images[0][:1] * 0, torch.full_like(self.masks[0][:1], IGNORE)
            return SegmentBatch((image,), (mask,), self.index.new_zeros(1), self.channels)
        image = torch.zeros(1, self.channels, 64, 64)
        return SegmentBatch((image,), (torch.full((1, 64, 64), IGNORE),), self.index.new_zeros(1), self.channels)


def grouped(samples: Sequence[tuple[tuple[Tensor, Tensor], int]], channels: int = 3) -> SegmentBatch:
    """Return a batch of `((image, mask), number)`, with images of one size together in the order of their first."""
    groups: dict[tuple[torch.Size, torch.Size], list[tuple[tuple[Tensor, Tensor], int]]] = {}
    for sample in samples:
        (image, mask), _ = sample
        groups.setdefault((image.shape, mask.shape), []).append(sample)
    images = tuple(torch.stack([image for (image, _), _ in group]) for group in groups.values())
    masks = tuple(torch.stack([mask for (_, mask), _ in group]) for group in groups.values())
    index = torch.tensor([number for group in groups.values() for _, number in group], dtype=torch.long)
    return SegmentBatch(images, masks, index, channels)
