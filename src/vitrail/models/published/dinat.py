"""Published figures of dinat."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "dinat_mini": Published(224, 19_984_174, 2_694_812_672, note="official 81.8"),
    "dinat_tiny": Published(224, 27_901_582, 4_295_226_368, note="official 82.7"),
    "dinat_small": Published(224, 50_719_681, 7_772_302_848, note="official 83.8"),
    "dinat_base": Published(224, 89_769_652, 13_677_094_912, note="official 84.4"),
    "dinat_large": Published(224, 200_943_514, 30_457_715_712, note="official 86.6, from ImageNet-22K"),
    "dinat_large_384": Published(384, 200_943_514, 89_505_411_072, note="official 87.4, from ImageNet-22K"),
    "dinat_large_384_11x11": Published(384, 201_144_250, 92_085_301_248, note="official 87.5, from ImageNet-22K"),
    "dinat_large_21k": Published(224, 232_976_131, 30_489_727_488),
}
