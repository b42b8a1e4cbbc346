"""Published figures of halonet."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "halonet26t": Published(256, 12_480_288, 3_169_927_168, 79.13, "a1h_in1k"),
    "halonet50ts": Published(256, 22_733_280, 5_260_132_352, 81.64, "a1h_in1k"),
}
