"""RoIAlign over the levels of a pyramid, on a CPU as one product of a sparse matrix with the cells of all levels."""

from collections.abc import Sequence
from math import log2

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper


class RegionPool(MultiScaleRoIAlign):
    """Pool a fixed number of bins from each region of the level that fits its size.

    Each bin is the mean of `sampling_ratio^2` bilinear samples ("Mask R-CNN", section 3), so a weighted sum of
    `4 sampling_ratio^2` cells, each a row of channels. torchvision's CPU kernel visits the channels one by one, whose
    cells are far apart: it takes half of a training step of a detector. Here all regions of all levels and images are
    one `embedding_bag`, which reads and adds whole rows. Other devices keep torchvision's kernel. Same results; the
    gradient reaches the levels and not the boxes.

    Args:
        featmap_names: names of the levels, finest first.
        output_size: bins P on each side.
        sampling_ratio: samples of a bin on each axis.
        strides: pixels per cell side of each level. By default they follow from the sizes of levels and images, as in
            torchvision, whose rounding takes 3 cells of 32 pixels for 65 pixels as cells of 16.

    Example:
        >>> pool = RegionPool(["0"], output_size=7, sampling_ratio=2)
        >>> boxes = [torch.tensor([[4.0, 4.0, 20.0, 12.0]])]
        >>> pool({"0": torch.zeros(1, 8, 16, 16)}, boxes, [(64, 64)]).shape
        torch.Size([1, 8, 7, 7])
    """

    def __init__(
        self, featmap_names: Sequence[str], output_size: int, sampling_ratio: int, strides: Sequence[int] = ()
    ):
        super().__init__(list(featmap_names), output_size, sampling_ratio)
        self.strides = tuple(strides)
        if strides:
            self.scales = scales_of(strides)
            self.map_levels = self._level_mapper(self.scales)

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Pool the regions of each image.

        Args:
            x: levels `(B, C, H_l, W_l)` by name.
            boxes: one `(R_b, 4)` tensor an image: x1, y1, x2, y2 in pixels.
            image_shapes: rows and columns of each image.

        Returns:
            `(R, C, P, P)`, the images one after the other.
        """
        levels = [x[name] for name in self.featmap_names]
        if levels[0].device.type != "cpu":
            return super().forward(x, boxes, image_shapes)
        known = scales_of(self.strides) if self.strides else []
        scales = known or [_scale(level, image_shapes) for level in levels]
        regions = torch.cat(boxes).detach().to(levels[0].dtype)
        mapper = self._level_mapper(scales)
        chosen = mapper(boxes) if len(levels) > 1 else regions.new_zeros(len(regions), dtype=torch.int64)
        image = torch.cat([torch.full((len(each),), i) for i, each in enumerate(boxes)])

        heights, widths = (torch.tensor([level.shape[axis] for level in levels]) for axis in (2, 3))
        cells = heights * widths
        starts = (cells * len(levels[0])).cumsum(0) - cells * len(levels[0])
        first_cell = starts[chosen] + image * cells[chosen]

        scaled = regions * regions.new_tensor(scales)[chosen, None]
        (tall, wide), samples = self.output_size, self.sampling_ratio
        columns, across = _taps(scaled[:, 0], scaled[:, 2], widths[chosen], wide, samples)
        rows, down = _taps(scaled[:, 1], scaled[:, 3], heights[chosen], tall, samples)
        rows = first_cell[:, None, None] + rows * widths[chosen, None, None]
        index = rows[:, :, None, :, None] + columns[:, None, :, None, :]  # (R, P, P, 2 samples, 2 samples)
        weights = down[:, :, None, :, None] * across[:, None, :, None, :]

        table = torch.cat([level.permute(0, 2, 3, 1).flatten(0, 2) for level in levels])
        taps = (2 * samples) ** 2
        pooled = embedding_bag(index.view(-1, taps), table, per_sample_weights=weights.view(-1, taps), mode="sum")
        return pooled.view(len(regions), tall, wide, table.shape[1]).permute(0, 3, 1, 2)

    def _level_mapper(self, scales: Sequence[float]) -> LevelMapper:
        return LevelMapper(int(-log2(scales[0])), int(-log2(scales[-1])), self.canonical_scale, self.canonical_level)


def scales_of(strides: Sequence[int]) -> list[float]:
    """Return cells per pixel of each level, powers of two as in torchvision.

    Example:
        >>> scales_of([4, 7, 14])
        [0.25, 0.125, 0.0625]
    """
    return [2.0 ** -round(log2(stride)) for stride in strides]


def _scale(level: Tensor, image_shapes: list[tuple[int, int]]) -> float:
    """Return the cells of a level for one pixel, a power of two, from the longer side: it has less padding."""
    pixels = [max(sides) for sides in zip(*image_shapes, strict=True)]
    axis = pixels.index(max(pixels))
    return 2.0 ** round(log2(level.shape[2 + axis] / pixels[axis]))


def _taps(start: Tensor, end: Tensor, length: Tensor, bins: int, samples: int) -> tuple[Tensor, Tensor]:
    """Return the cells that each bin reads on one axis, and their weights.

    Args:
        start: first coordinate of each region, in cells.
        end: last one.
        length: cells of the axis, for each region.
        bins: bins of the axis, P.
        samples: samples of a bin on the axis.

    Returns:
        Both `(R, P, 2 samples)`. Samples more than one cell outside count as zero.
    """
    bin_size = (end - start).clamp(min=1) / bins
    first = start[:, None] + bin_size[:, None] * torch.arange(bins)
    within = bin_size[:, None] * (torch.arange(samples) + 0.5).to(start.dtype) / samples
    at = (first[:, :, None] + within[:, None]).flatten(1)  # in torchvision's order: the same rounding
    last = (length - 1)[:, None]
    inside = (at >= -1) & (at <= length[:, None])
    at = torch.minimum(at.clamp(min=0), last)
    low = at.long()
    share = at - low
    index = torch.stack((low, torch.minimum(low + 1, last)), dim=2)
    weights = torch.stack((1 - share, share), dim=2) * (inside / samples)[..., None]
    return index.view(len(start), bins, 2 * samples), weights.view(len(start), bins, 2 * samples)
