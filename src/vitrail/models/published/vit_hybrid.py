"""Published figures of vit_hybrid."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "vit_tiny_r_s16_p8_224": Published(224, 6_337_704, 433_681_920, 71.8, "augreg_in21k_ft_in1k"),
    "vit_tiny_r_s16_p8_384": Published(384, 6_355_944, 1_326_858_240, 75.96, "augreg_in21k_ft_in1k", "official 75.40"),
    "vit_small_r26_s32_224": Published(224, 36_431_912, 3_463_851_008, 81.86, "augreg_in21k_ft_in1k"),
    "vit_small_r26_s32_384": Published(
        384, 36_468_392, 10_263_625_728, 84.07, "augreg_in21k_ft_in1k", "official 83.85"
    ),
    "vit_base_r50_s16_224": Published(224, 98_659_112, 21_535_358_976),
    "vit_base_r50_s16_384": Published(384, 98_950_952, 67_155_787_776, 84.99, "orig_in21k_ft_in1k"),
    "vit_large_r50_s32_224": Published(224, 328_994_856, 19_413_295_104, 84.43, "augreg_in21k_ft_in1k"),
    "vit_large_r50_s32_384": Published(
        384, 329_092_136, 57_136_144_384, 86.19, "augreg_in21k_ft_in1k", "official 85.99"
    ),
}
