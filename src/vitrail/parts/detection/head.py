"""Detection head: feature pyramid network, region proposals, box head and mask head, from torchvision's parts."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, paste_masks_in_image
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from vitrail.parts.backbone import Features
from vitrail.parts.decoders.pyramid import PyramidMaps, SimplePyramidMaps
from vitrail.parts.detection.boxes import Boxes, Targets
from vitrail.parts.detection.region_pooling import RegionPool

RATIOS = (0.5, 1.0, 2.0)
"""Height over width of the anchors."""


def at_least_fp32(x: Tensor) -> Tensor:
    """Return a tensor in fp32, or in float64 if it is: coordinates need more than the eight bits of bf16.

    Example:
        >>> at_least_fp32(torch.zeros(1, dtype=torch.bfloat16)).dtype, at_least_fp32(torch.zeros(1).double()).dtype
        (torch.float32, torch.float64)
    """
    return x if x.dtype == torch.float64 else x.float()


class ProposalHead(RPNHead):
    """torchvision's head of the proposals; under autocast its outputs are fp32."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return objectness and box offsets of each level."""
        objectness, offsets = super().forward(x)
        return [at_least_fp32(each) for each in objectness], [at_least_fp32(each) for each in offsets]


class BoxPredictor(FastRCNNPredictor):
    """torchvision's classes and boxes of the proposals; under autocast its outputs are fp32."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits and box offsets."""
        logits, offsets = super().forward(x)
        return at_least_fp32(logits), at_least_fp32(offsets)


class MaskPredictor(MaskRCNNPredictor):
    """torchvision's masks of the proposals; under autocast its outputs are fp32."""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return mask logits."""
        return at_least_fp32(super().forward(x))


class DetectionHead(nn.Module):
    """Proposals and their boxes, classes and masks, from the features of a backbone.

    The children `fpn`, `rpn` and `roi_heads` are torchvision's, so their checkpoints load key by key. An anchor has the
    side `anchor_scale` x stride on each level; the coarsest level is pooled once more for the largest anchors.

    Args:
        maps: `Features -> [(B, C, H, W), ...]`, finest first, with `channels` and `strides`.
        num_classes: classes K, the background not counted.
        channels: channels of the feature pyramid.
        hidden: width of the box head.
        anchor_scale: side of an anchor in cells of its level.
        masks: the parts of a mask head, see `mask_parts`; none by default.
        score_threshold: least score of a detection.
        nms_threshold: overlap (IoU) above which the lower score is dropped.
        detections: most detections of an image.
    """

    def __init__(
        self,
        maps: PyramidMaps | SimplePyramidMaps,
        num_classes: int,
        channels: int = 256,
        hidden: int = 1024,
        anchor_scale: float = 8.0,
        masks: Mapping[str, nn.Module] | None = None,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        detections: int = 100,
    ):
        super().__init__()
        self.maps = maps
        self.fpn = FeaturePyramidNetwork(list(maps.channels), channels, LastLevelMaxPool())
        strides = [*maps.strides, 2 * maps.strides[-1]]
        anchors = AnchorGenerator(
            tuple((round(anchor_scale * stride),) for stride in strides), (RATIOS,) * len(strides)
        )
        self.rpn = RegionProposalNetwork(
            anchors,
            ProposalHead(channels, len(RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2000, "testing": 1000},
            post_nms_top_n={"training": 2000, "testing": 1000},
            nms_thresh=0.7,
        )
        names = [str(level) for level in range(len(maps.channels))]
        pool = RegionPool(names, output_size=7, sampling_ratio=2, strides=maps.strides)
        self.roi_heads = RoIHeads(
            pool,
            TwoMLPHead(channels * 7 * 7, hidden),
            BoxPredictor(hidden, num_classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=512,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=score_threshold,
            nms_thresh=nms_threshold,
            detections_per_img=detections,
            **(masks or {}),
        )

    def forward(self, features: Features, shape: tuple[int, int], sizes: list[tuple[int, int]]) -> list[Boxes]:
        """Return the detections of each image.

        Args:
            features: of the padded images.
            shape: rows and columns of the padded images.
            sizes: rows and columns of each image.
        """
        levels, proposals, _ = self._propose(features, shape, sizes, None)
        found, _ = self.roi_heads(levels, proposals, sizes)
        masks = [each.get("masks") for each in found]
        return [
            Boxes(each["boxes"], each["scores"], each["labels"] - 1, None if mask is None else mask[:, 0])
            for each, mask in zip(found, masks, strict=True)
        ]

    def losses(
        self, features: Features, shape: tuple[int, int], sizes: list[tuple[int, int]], targets: Targets
    ) -> dict[str, Tensor]:
        """Return the losses by name: objectness and box of the proposals; class, box and mask of the detections.

        Anchors and proposals to learn from are drawn from torch's generator. Losses of boxes and masks are means over
        the regions of the batch: several processes weigh theirs alike, whatever their number, as torchvision's do.
        """
        modes = [(part, part.training) for part in (self.rpn, self.roi_heads)]
        for part, _ in modes:
            part.training = True  # torchvision computes losses in training mode only; these parts have no dropout
        try:
            wanted = targets.dicts()
            levels, proposals, losses = self._propose(features, shape, sizes, wanted)
            return losses | self.roi_heads(levels, proposals, sizes, wanted)[1]
        finally:
            for part, mode in modes:
                part.training = mode

    def levels(self, features: Features) -> OrderedDict[str, Tensor]:
        """Return the levels of the feature pyramid network, the finest first, in fp32."""
        maps = OrderedDict((str(i), level) for i, level in enumerate(self.maps(features)))
        return OrderedDict((name, at_least_fp32(level)) for name, level in self.fpn(maps).items())

    def _propose(
        self,
        features: Features,
        shape: tuple[int, int],
        sizes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None,
    ) -> tuple[OrderedDict[str, Tensor], list[Tensor], dict[str, Tensor]]:
        """Return the levels, the proposals and their losses. Products run in the caller's precision, boxes in fp32."""
        levels = self.levels(features)
        canvas = levels["0"].new_empty((len(sizes), 1, *shape))  # only its shape is read
        proposals, losses = self.rpn(ImageList(canvas, sizes), levels, targets)
        return levels, proposals, losses


def mask_parts(strides: Sequence[int], num_classes: int, channels: int = 256) -> dict[str, nn.Module]:
    """Return the mask head of Mask R-CNN: four 3 x 3 convolutions, a transposed one, one 28 x 28 mask per class.

    "Mask R-CNN", section 3 and figure 4 (right).

    Args:
        strides: pixels per cell side of each level of the backbone.
        num_classes: classes K, the background not counted.
        channels: channels of the feature pyramid and of the convolutions.

    Example:
        >>> sorted(mask_parts([4, 8, 16, 32], num_classes=3, channels=8))
        ['mask_head', 'mask_predictor', 'mask_roi_pool']
    """
    names = [str(level) for level in range(len(strides))]
    return {
        "mask_roi_pool": RegionPool(names, output_size=14, sampling_ratio=2, strides=strides),
        "mask_head": MaskRCNNHeads(channels, (channels,) * 4, 1),
        "mask_predictor": MaskPredictor(channels, channels, num_classes + 1),
    }


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Return masks `(n, Y, X)` of bool in an image from those inside their boxes.

    Args:
        masks: `(n, 28, 28)` probabilities.
        boxes: `(n, 4)` in pixels of the image.
        size: rows and columns of the image.
        threshold: least probability of a pixel.

    Example:
        >>> paste_masks(torch.ones(1, 28, 28), torch.tensor([[2.0, 1.0, 5.0, 3.0]]), (4, 6)).shape
        torch.Size([1, 4, 6])
    """
    if not len(masks):
        return torch.zeros((0, *size), dtype=torch.bool)
    return paste_masks_in_image(masks[:, None], boxes, size)[:, 0] >= threshold
