"""Heads of detectors in optimized models: feature pyramid, proposals, boxes and masks from torchvision's parts."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops.misc import Conv2dNormActivation

from vitrail.fused.map_convolution import FusedConv1x1, FusedConv3x3, fuse_map_conv
from vitrail.fused.unsupported import NotConverted, Seats, check_parts
from vitrail.native.gemm import linear, pack_linear
from vitrail.parts.detection.head import DetectionHead

BOX_SEATS: Seats = {"fc6": (nn.Linear,), "fc7": (nn.Linear,)}


class FusedBoxHead(nn.Module):
    """Two linear layers with ReLU, of the flattened maps of the proposals: most of the products of a box head.

    Args:
        head: torchvision's layers.
        dtype: compute dtype; the result is fp32.
    """

    def __init__(self, head: TwoMLPHead, dtype: torch.dtype):
        super().__init__()
        check_parts(head, BOX_SEATS)
        if dtype != torch.float32 and any(layer.in_features % 2 for layer in (head.fc6, head.fc7)):
            raise NotConverted("bf16 needs an even number of inputs")
        self.packed = [pack_linear(layer.weight, layer.bias, dtype) for layer in (head.fc6, head.fc7)]

    def forward(self, maps: Tensor) -> Tensor:
        """Return `(n, hidden)` from `(n, C, h, w)`."""
        x = maps.flatten(1)
        for layer in self.packed:
            x = linear(x.to(layer.dtype), layer).relu_()
        return x.float()


def fuse_conv_act(unit: Conv2dNormActivation) -> FusedConv1x1 | FusedConv3x3:
    """Return the fused convolution, with its ReLU if one follows.

    Raises:
        NotConverted: it has a norm, or unknown parts.
    """
    rectified = len(unit) > 1
    check_parts(unit, {"0": (nn.Conv2d,), **({"1": (nn.ReLU,)} if rectified else {})})
    return fuse_map_conv(unit[0], rectified)  # pyright: ignore[reportArgumentType]


def detector_modules(dtype: torch.dtype) -> Mapping[type[nn.Module], Callable[..., nn.Module]]:
    """Return the fused module of each part of a detection head of exactly this type, with those of all heads."""
    return {Conv2dNormActivation: fuse_conv_act, TwoMLPHead: lambda head: FusedBoxHead(head, dtype)}


def detector_parts(head: DetectionHead) -> list[nn.Module]:
    """Return the modules of a detection head whose children are converted."""
    return [head.maps, head.fpn, head.rpn.head, head.roi_heads]
