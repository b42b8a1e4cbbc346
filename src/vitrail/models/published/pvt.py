"""Published figures of pvt."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "pvt_tiny": Published(224, 13_229_288, 1_932_911_616, note="paper 75.1"),
    "pvt_small": Published(224, 24_485_864, 3_815_701_504, note="paper 79.8"),
    "pvt_medium": Published(224, 44_208_104, 6_659_175_424, note="paper 81.2"),
    "pvt_large": Published(224, 61_369_320, 9_813_765_632, note="paper 81.7"),
}
