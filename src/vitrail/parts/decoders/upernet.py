"""UperNet: pyramid pooling on the coarsest level, a feature pyramid network, and a fusion of all levels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitrail.parts.adaptive_pooling import adaptive_mean
from vitrail.parts.convolutions import ChannelsFirst
from vitrail.parts.decoders.conv_norm_act import ConvNormAct
from vitrail.parts.decoders.resize import resize_map


class PyramidPooling(nn.Module):
    """Means of a map over grids of several sizes, each projected and brought back, beside the map itself.

    y = conv3x3([x; up(conv1x1(pool_1 x)); ...; up(conv1x1(pool_6 x))])

    "Pyramid Scene Parsing Network", section 3.2.

    Args:
        in_channels: channels of the map.
        width: channels of each projection and of the result.
        scales: sides of the grids.
    """

    def __init__(self, in_channels: int, width: int, scales: Sequence[int]):
        super().__init__()
        self.scales = tuple(scales)
        self.projections = nn.ModuleList(ConvNormAct(in_channels, width) for _ in scales)
        self.bottleneck = ConvNormAct(in_channels + len(self.scales) * width, width, kernel_size=3)

    def forward(self, cells: ChannelsFirst) -> Tensor:
        """Pool, project, fuse."""
        pooled = [cells]
        for scale, project in zip(self.scales, self.projections, strict=True):
            pooled.append(resize_map(project(adaptive_mean(cells, scale)), cells.shape[2:]))
        return self.bottleneck(torch.cat(pooled, dim=1))


class UperNetDecoder(nn.Module):
    """A pyramid in, one map of the finest level out.

    p_L = pooling(c_L);  p_l = conv1x1(c_l) + up(p_{l+1});  y = conv3x3([conv3x3(p_1); ...; conv3x3(p_{L-1}); p_L])

    "Unified Perceptual Parsing for Scene Understanding", section 3.1; the numbers are those of Swin's section 4.3.

    Args:
        channels: channels of the levels, finest first.
        width: channels of the result.
        scales: sides of the grids of pyramid pooling.

    Example:
        >>> maps = [torch.zeros(2, c, s, s) for c, s in ((8, 16), (16, 8), (32, 4))]
        >>> UperNetDecoder((8, 16, 32), 12, (1, 2))(maps).shape
        torch.Size([2, 12, 16, 16])
    """

    def __init__(self, channels: Sequence[int], width: int, scales: Sequence[int] = (1, 2, 3, 6)):
        super().__init__()
        *finer, coarsest = channels
        self.width = width
        self.pooling = PyramidPooling(coarsest, width, scales)
        self.lateral = nn.ModuleList(ConvNormAct(each, width) for each in finer)
        self.smooth = nn.ModuleList(ConvNormAct(width, width, kernel_size=3) for _ in finer)
        self.fuse = ConvNormAct(len(channels) * width, width, kernel_size=3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Decode `(B, C_l, H_l, W_l)` to `(B, width, H_1, W_1)`."""
        levels = [project(each) for project, each in zip(self.lateral, maps, strict=False)]
        levels.append(self.pooling(maps[-1]))
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + resize_map(levels[i], levels[i - 1].shape[2:])
        levels[:-1] = [smooth(each) for smooth, each in zip(self.smooth, levels, strict=False)]
        finest, *coarser = levels
        return self.fuse(torch.cat([finest, *(resize_map(each, finest.shape[2:]) for each in coarser)], dim=1))
