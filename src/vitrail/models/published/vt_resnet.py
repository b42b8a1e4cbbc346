"""Published figures of vt_resnet; of tables that contradict each other, see the errata."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "vt_resnet50": Published(224, 21_381_160, 3_524_550_656, note="paper, table 8: 21.4 M, 3.41 G, 80.6"),
    "vt_resnet50_filter": Published(224, 19_316_776, 3_490_996_224),
    "vt_resnet101": Published(
        224, 40_373_288, 7_236_771_840, note="paper, table 8: 41.5 M, 7.13 G, 82.3; by its table 1 40.4 M"
    ),
}
