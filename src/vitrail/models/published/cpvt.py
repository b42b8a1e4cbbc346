"""Published figures of cpvt."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "cpvt_tiny": Published(224, 5_681_512, 1_254_021_888, note="paper 72.4"),
    "cpvt_tiny_peg5": Published(224, 5_689_192, 1_255_376_640, note="paper 73.4"),
    "cpvt_tiny_gap": Published(224, 5_681_320, 1_246_902_528, note="paper 74.9"),
    "cpvt_small": Published(224, 21_978_856, 4_599_559_680, note="paper 79.9"),
    "cpvt_small_peg5": Published(224, 21_994_216, 4_602_269_184, note="paper 80.5"),
    "cpvt_small_gap": Published(224, 21_978_472, 4_574_704_128, note="paper 81.5"),
    "cpvt_base": Published(224, 86_424_040, 17_565_182_976),
    "cpvt_base_peg5": Published(224, 86_454_760, 17_570_601_984),
    "cpvt_base_gap": Published(224, 86_423_272, 17_473_004_544),
}
