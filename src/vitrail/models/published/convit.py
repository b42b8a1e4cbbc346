"""Published figures of convit."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "convit_tiny": Published(224, 5_710_512, 1_252_360_320, 73.14, "fb_in1k"),
    "convit_small": Published(224, 27_777_322, 5_746_563_360, 81.41, "fb_in1k"),
    "convit_base": Published(224, 86_540_040, 17_505_452_544, 82.3, "fb_in1k"),
}
