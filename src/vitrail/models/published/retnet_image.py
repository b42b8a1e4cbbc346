"""Figures of retnet_image, whose sizes are this library's."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "retnet_tiny_patch16_224": Published(224, 5_665_576, 1_335_074_304),
    "retnet_small_patch16_224": Published(224, 21_946_984, 4_751_047_680),
}
