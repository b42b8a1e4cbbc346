"""Published figures of igpt."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "imagegpt_small": Published(32, 76_932_096, 103_081_299_968, note="official 76 M"),
    "imagegpt_medium": Published(32, 455_989_248, 541_168_476_160, note="official 455 M"),
    "imagegpt_large": Published(32, 1_363_663_872, 1_546_191_335_424, note="official 1.4 B"),
}
