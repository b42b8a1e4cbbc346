"""Published figures of mask_rcnn: multiply-adds of the backbone, the pyramid and the head of the proposals."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "mask_rcnn_resnet50": Published(
        800, 44_454_513, 120_020_169_216, note="torchvision 44.40 M (frozen norms not counted)", task="detect"
    ),
    "mask_rcnn_swin_tiny": Published(512, 47_798_959, 50_130_618_240, task="detect"),
    "mask_rcnn": Published(512, 11_007_365, 17_310_970_368, task="detect"),
}
