"""Published figures of faster_rcnn: multiply-adds of the backbone, the pyramid and the head of the proposals."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "faster_rcnn_resnet50": Published(
        800, 41_808_406, 120_020_169_216, note="torchvision 41.76 M (frozen norms not counted)", task="detect"
    ),
    "faster_rcnn_swin_tiny": Published(512, 45_155_422, 50_130_618_240, task="detect"),
    "faster_rcnn": Published(512, 10_340_916, 17_310_970_368, task="detect"),
}
