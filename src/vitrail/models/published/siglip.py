"""Published figures of siglip."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "vit_base_patch16_siglip_224": Published(224, 92_884_224, 17_708_292_096),
    "vit_base_patch16_siglip_256": Published(256, 92_930_304, 23_410_507_776),
    "vit_base_patch16_siglip_384": Published(384, 93_176_064, 56_063_655_936),
    "vit_base_patch16_siglip_512": Published(512, 93_520_128, 108_119_851_008),
    "vit_large_patch16_siglip_256": Published(256, 315_956_224, 81_279_844_352),
    "vit_large_patch16_siglip_384": Published(384, 316_283_904, 191_926_239_232),
    "vit_large_patch16_siglip_512": Published(512, 316_742_656, 363_742_625_792),
    "vit_so400m_patch14_siglip_224": Published(224, 427_680_704, 110_176_948_224),
    "vit_so400m_patch14_siglip_378": Published(
        378, 428_225_600, 335_173_224_960, note="timm's webli_ft_in1k, fine-tuned with 1000 classes: 89.41"
    ),
    "vit_base_patch16_siglip_gap_224": Published(224, 85_797_120, 17_470_881_792),
    "vit_base_patch16_siglip_gap_256": Published(256, 85_843_200, 23_102_226_432),
    "vit_base_patch16_siglip_gap_384": Published(384, 86_088_960, 55_377_395_712),
    "vit_base_patch16_siglip_gap_512": Published(512, 86_433_024, 106_904_420_352),
    "vit_large_patch16_siglip_gap_256": Published(256, 303_361_024, 80_731_963_392),
    "vit_large_patch16_siglip_gap_384": Published(384, 303_688_704, 190_706_614_272),
    "vit_large_patch16_siglip_gap_512": Published(512, 304_147_456, 361_582_559_232),
    "vit_so400m_patch14_siglip_gap_224": Published(224, 412_442_352, 109_484_310_528),
    "vit_so400m_patch14_siglip_gap_378": Published(
        378, 412_987_248, 333_224_057_088, note="timm's webli_ft_in1k, fine-tuned with 1000 classes: 89.06"
    ),
}
