"""Heads of dense models in optimized models: fp32 maps, and batch norm folded into its convolution."""

from typing import Any

import torch
from torch import Tensor, nn

from vitrail.fused.walker import replace_modules
from vitrail.parts.backbone import Features
from vitrail.parts.decoders.conv_norm_act import ConvNormAct
from vitrail.parts.decoders.segmenter import SegmentationHead


class Fp32Maps(nn.Module):
    """Maps of a pyramid that the backbone returns in its residual dtype.

    Args:
        maps: `Features -> maps`, in fp32.
    """

    def __init__(self, maps: Any):
        super().__init__()
        self.maps, self.channels, self.strides = maps, maps.channels, maps.strides

    def forward(self, features: Features) -> list[Tensor]:
        """Cast the features and return the maps."""
        pyramid = tuple(level.float() for level in features.pyramid)
        return self.maps(features._replace(tokens=features.tokens.float(), pyramid=pyramid))


class FoldedConvAct(nn.Module):
    """A convolution with the statistics of its batch norm folded in, then ReLU in place.

    w' = w * gamma / sqrt(var + eps);  b' = beta - mean * gamma / sqrt(var + eps)

    Args:
        unit: convolution, batch norm and ReLU in evaluation mode.
    """

    def __init__(self, unit: ConvNormAct):
        super().__init__()
        conv, norm = unit.conv, unit.norm
        assert norm.running_var is not None and norm.running_mean is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        sizes: Any = (conv.in_channels, conv.out_channels, conv.kernel_size)
        self.conv = nn.Conv2d(*sizes, padding=conv.padding)  # pyright: ignore[reportArgumentType]
        with torch.no_grad():
            self.conv.weight.copy_(conv.weight * scale[:, None, None, None])
            assert self.conv.bias is not None
            self.conv.bias.copy_(norm.bias - norm.running_mean * scale)
        self.conv.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, cells: Tensor) -> Tensor:
        """Convolve and rectify."""
        return self.conv(cells).relu_()


def fold_head(head: nn.Module) -> None:
    """Fold the batch norms of a segmentation head, and cast the pyramid that it reads; other heads stay."""
    if not isinstance(head, SegmentationHead):
        return
    replace_modules(head, lambda module: FoldedConvAct(module) if type(module) is ConvNormAct else None)
    head.maps = Fp32Maps(head.maps)
