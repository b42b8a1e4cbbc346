"""Published figures of the FPN segmenter at 512 x 512 with 150 classes."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "fpn_segmenter": Published(512, 6_085_926, 13_572_837_888, task="segment"),
}
