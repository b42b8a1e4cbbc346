"""Light decoders: SegFormer's MLP head, and a feature pyramid of sums."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitrail.parts.decoders.conv_norm_act import ConvNormAct
from vitrail.parts.decoders.resize import resize_map


class MLPDecoder(nn.Module):
    """Project each level, bring all to the finest, fuse.

    y = relu(norm(conv1x1([up(W_L c_L); ...; up(W_2 c_2); W_1 c_1])))

    "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", section 3.2. There is no
    activation between the two projections.

    Args:
        channels: channels of the levels, finest first.
        width: channels of the result.

    Example:
        >>> maps = [torch.zeros(2, c, s, s) for c, s in ((8, 16), (16, 8))]
        >>> MLPDecoder((8, 16), 12)(maps).shape
        torch.Size([2, 12, 16, 16])
    """

    def __init__(self, channels: Sequence[int], width: int):
        super().__init__()
        self.width = width
        self.projections = nn.ModuleList(nn.Linear(each, width) for each in channels)
        self.fuse = ConvNormAct(len(channels) * width, width)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Decode `(B, C_l, H_l, W_l)` to `(B, width, H_1, W_1)`."""
        finest, *coarser = [
            layer(each.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            for layer, each in zip(self.projections, maps, strict=True)
        ]
        resized = [resize_map(each, finest.shape[2:]) for each in reversed(coarser)]
        return self.fuse(torch.cat([*resized, finest], dim=1))


class FPNDecoder(nn.Module):
    """A feature pyramid of sums and one convolution: the lightest decoder with a 3 x 3 neighborhood.

    p_L = W_L c_L;  p_l = W_l c_l + up(p_{l+1});  y = relu(norm(conv3x3(p_1)))

    "Feature Pyramid Networks for Object Detection", section 3, whose finest map alone is read.

    Args:
        channels: channels of the levels, finest first.
        width: channels of the result.

    Example:
        >>> maps = [torch.zeros(2, c, s, s) for c, s in ((8, 16), (16, 8))]
        >>> FPNDecoder((8, 16), 12)(maps).shape
        torch.Size([2, 12, 16, 16])
    """

    def __init__(self, channels: Sequence[int], width: int):
        super().__init__()
        self.width = width
        self.lateral = nn.ModuleList(nn.Conv2d(each, width, 1) for each in channels)
        self.smooth = ConvNormAct(width, width, kernel_size=3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Decode `(B, C_l, H_l, W_l)` to `(B, width, H_1, W_1)`."""
        top, *others = [layer(each) for layer, each in zip(self.lateral, maps, strict=True)][::-1]
        for each in others:
            top = each + resize_map(top, each.shape[2:])
        return self.smooth(top)


class FCNDecoder(nn.Module):
    """Convolutions on one level, for an auxiliary loss.

    "Fully Convolutional Networks for Semantic Segmentation", section 4, as in mmsegmentation's UperNet.

    Args:
        level: index of the level; negative from the coarsest.
        channels: channels of the levels, finest first.
        width: channels of the result.
    """

    def __init__(self, level: int, channels: Sequence[int], width: int):
        super().__init__()
        self.level, self.width = level, width
        self.convs = nn.ModuleList([ConvNormAct(channels[level], width, kernel_size=3)])

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Decode one level to `(B, width, H_l, W_l)`."""
        cells = maps[self.level]
        for conv in self.convs:
            cells = conv(cells)
        return cells
