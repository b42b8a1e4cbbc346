"""Published figures of nat."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "nat_mini": Published(224, 19_984_174, 2_694_812_672, note="official 81.8"),
    "nat_tiny": Published(224, 27_901_582, 4_295_226_368, note="official 83.2"),
    "nat_small": Published(224, 50_743_297, 7_772_302_848, note="official 83.7"),
    "nat_base": Published(224, 89_769_652, 13_677_094_912, note="official 84.3; 13.728 G with the norms counted"),
}
