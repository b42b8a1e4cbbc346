"""Published figures of vit."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "vit_tiny_patch16_224": Published(224, 5_717_416, 1_253_683_200, 75.45, "augreg_in21k_ft_in1k"),
    "vit_tiny_patch16_384": Published(384, 5_790_376, 4_682_219_520, 78.44, "augreg_in21k_ft_in1k", "official 78.22"),
    "vit_small_patch32_224": Published(224, 22_878_952, 1_142_909_952, 76.01, "augreg_in21k_ft_in1k"),
    "vit_small_patch32_384": Published(384, 22_915_432, 3_442_900_992, 80.48, "augreg_in21k_ft_in1k"),
    "vit_small_patch16_224": Published(224, 22_050_664, 4_598_882_304, 81.4, "augreg_in21k_ft_in1k"),
    "vit_small_patch16_384": Published(
        384, 22_196_584, 15_490_351_104, 83.81, "augreg_in21k_ft_in1k", "official 83.73"
    ),
    "vit_small_patch8_224": Published(224, 22_055_272, 22_405_742_592),
    "vit_base_patch32_224": Published(224, 88_224_232, 4_409_186_304, 80.73, "augreg_in21k_ft_in1k"),
    "vit_base_patch32_384": Published(384, 88_297_192, 13_043_564_544, 83.36, "augreg_in21k_ft_in1k", "official 83.59"),
    "vit_base_patch16_224": Published(224, 86_567_656, 17_563_828_224, 84.53, "augreg_in21k_ft_in1k"),
    "vit_base_patch16_384": Published(384, 86_859_496, 55_484_350_464, 86.01, "augreg_in21k_ft_in1k", "official 85.49"),
    "vit_base_patch8_224": Published(224, 86_576_872, 78_148_337_664, 85.84, "augreg_in21k_ft_in1k"),
    "vit_large_patch32_224": Published(224, 306_535_400, 15_377_539_072),
    "vit_large_patch32_384": Published(384, 306_632_680, 45_275_963_392, 81.51, "orig_in21k_ft_in1k"),
    "vit_large_patch16_224": Published(224, 304_326_632, 61_554_712_576, 85.86, "augreg_in21k_ft_in1k"),
    "vit_large_patch16_384": Published(
        384, 304_715_752, 191_066_300_416, 87.1, "augreg_in21k_ft_in1k", "official 85.59"
    ),
    "vit_large_patch14_224": Published(224, 304_203_752, 81_013_006_336),
    "vit_huge_patch14_224": Published(
        224, 632_045_800, 167_295_109_120, note="630,764,800 parameters without the head"
    ),
}
