"""Published figures of dinat_s."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "dinat_s_tiny": Published(224, 28_288_354, 4_490_566_656, note="official 81.8"),
    "dinat_s_small": Published(224, 49_606_258, 8_740_875_264, note="official 83.5"),
    "dinat_s_base": Published(224, 87_768_224, 15_430_946_816, note="official 83.8"),
    "dinat_s_large": Published(224, 196_532_476, 34_475_759_616, note="official 86.5, from ImageNet-22K"),
    "dinat_s_large_384": Published(384, 196_532_476, 101_313_540_096, note="official 87.4, from ImageNet-22K"),
    "dinat_s_large_21k": Published(224, 228_565_093, 34_507_771_392),
}
