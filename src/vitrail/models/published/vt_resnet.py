"""Published figures of vt_resnet; the paper does not state every width, see the errata."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "vt_resnet50": Published(
        224, 23_216_168, 3_715_850_240, note="paper 21.4 M, 3.41 G, 80.6 (its widths are not all stated)"
    ),
    "vt_resnet50_filter": Published(224, 21_151_784, 3_682_295_808),
    "vt_resnet101": Published(
        224, 42_208_296, 7_428_071_424, note="paper 41.5 M, 7.13 G, 82.3 (its widths are not all stated)"
    ),
}
