"""What is published about each variant: its size, its cost and how often its released weights are right.

`family` is the file of this room that builds it, and `pixels` the side of its pictures. `parameters` are exact, with
the variant's own classes (1000, but where a name ends in `21k`), and so are `multiply_adds`, of one picture of that
size, the products of attention included (tables that leave them out show less). `top1` is the ImageNet-1k validation
accuracy that timm measured (`results/results-imagenet.csv` in its repository) with the weights named by `weights`,
under the variant's own `preprocess`; None where it measured none. `note` holds what the authors ("paper", "official":
their repository) and others state. The tests count parameters and multiply-adds anew for every variant.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """The published figures of one variant."""

    family: str
    pixels: int
    parameters: int
    multiply_adds: int
    top1: float | None = None
    weights: str = ""
    note: str = ""

    @property
    def gmacs(self) -> float:
        """Multiply-adds as tables have them, in units of 10^9."""
        return round(self.multiply_adds / 1e9, 3)


PUBLISHED = {
    "vit_tiny_patch16_224": Published("vit", 224, 5_717_416, 1_253_683_200, 75.45, "augreg_in21k_ft_in1k"),
    "vit_tiny_patch16_384": Published(
        "vit", 384, 5_790_376, 4_682_219_520, 78.44, "augreg_in21k_ft_in1k", "official 78.22"
    ),
    "vit_small_patch32_224": Published("vit", 224, 22_878_952, 1_142_909_952, 76.01, "augreg_in21k_ft_in1k"),
    "vit_small_patch32_384": Published("vit", 384, 22_915_432, 3_442_900_992, 80.48, "augreg_in21k_ft_in1k"),
    "vit_small_patch16_224": Published("vit", 224, 22_050_664, 4_598_882_304, 81.4, "augreg_in21k_ft_in1k"),
    "vit_small_patch16_384": Published(
        "vit", 384, 22_196_584, 15_490_351_104, 83.81, "augreg_in21k_ft_in1k", "official 83.73"
    ),
    "vit_small_patch8_224": Published("vit", 224, 22_055_272, 22_405_742_592),
    "vit_base_patch32_224": Published("vit", 224, 88_224_232, 4_409_186_304, 80.73, "augreg_in21k_ft_in1k"),
    "vit_base_patch32_384": Published(
        "vit", 384, 88_297_192, 13_043_564_544, 83.36, "augreg_in21k_ft_in1k", "official 83.59"
    ),
    "vit_base_patch16_224": Published("vit", 224, 86_567_656, 17_563_828_224, 84.53, "augreg_in21k_ft_in1k"),
    "vit_base_patch16_384": Published(
        "vit", 384, 86_859_496, 55_484_350_464, 86.01, "augreg_in21k_ft_in1k", "official 85.49"
    ),
    "vit_base_patch8_224": Published("vit", 224, 86_576_872, 78_148_337_664, 85.84, "augreg_in21k_ft_in1k"),
    "vit_large_patch32_224": Published("vit", 224, 306_535_400, 15_377_539_072),
    "vit_large_patch32_384": Published("vit", 384, 306_632_680, 45_275_963_392, 81.51, "orig_in21k_ft_in1k"),
    "vit_large_patch16_224": Published("vit", 224, 304_326_632, 61_554_712_576, 85.86, "augreg_in21k_ft_in1k"),
    "vit_large_patch16_384": Published(
        "vit", 384, 304_715_752, 191_066_300_416, 87.1, "augreg_in21k_ft_in1k", "official 85.59"
    ),
    "vit_large_patch14_224": Published("vit", 224, 304_203_752, 81_013_006_336),
    "vit_huge_patch14_224": Published(
        "vit", 224, 632_045_800, 167_295_109_120, note="630,764,800 parameters without the head"
    ),
    "vit_tiny_r_s16_p8_224": Published("vit_hybrid", 224, 6_337_704, 433_681_920, 71.8, "augreg_in21k_ft_in1k"),
    "vit_tiny_r_s16_p8_384": Published(
        "vit_hybrid", 384, 6_355_944, 1_326_858_240, 75.96, "augreg_in21k_ft_in1k", "official 75.40"
    ),
    "vit_small_r26_s32_224": Published("vit_hybrid", 224, 36_431_912, 3_463_851_008, 81.86, "augreg_in21k_ft_in1k"),
    "vit_small_r26_s32_384": Published(
        "vit_hybrid", 384, 36_468_392, 10_263_625_728, 84.07, "augreg_in21k_ft_in1k", "official 83.85"
    ),
    "vit_base_r50_s16_224": Published("vit_hybrid", 224, 98_659_112, 21_535_358_976),
    "vit_base_r50_s16_384": Published("vit_hybrid", 384, 98_950_952, 67_155_787_776, 84.99, "orig_in21k_ft_in1k"),
    "vit_large_r50_s32_224": Published("vit_hybrid", 224, 328_994_856, 19_413_295_104, 84.43, "augreg_in21k_ft_in1k"),
    "vit_large_r50_s32_384": Published(
        "vit_hybrid", 384, 329_092_136, 57_136_144_384, 86.19, "augreg_in21k_ft_in1k", "official 85.99"
    ),
    "deit_tiny_patch16_224": Published("deit", 224, 5_717_416, 1_253_683_200, 72.19, "fb_in1k", "paper 72.2"),
    "deit_small_patch16_224": Published("deit", 224, 22_050_664, 4_598_882_304, 79.86, "fb_in1k", "paper 79.9"),
    "deit_base_patch16_224": Published("deit", 224, 86_567_656, 17_563_828_224, 81.98, "fb_in1k", "paper 81.8"),
    "deit_base_patch16_384": Published("deit", 384, 86_859_496, 55_484_350_464, 83.11, "fb_in1k", "official 82.9"),
    "deit_tiny_distilled_patch16_224": Published("deit", 224, 5_910_800, 1_261_003_776, 74.54, "fb_in1k", "paper 74.5"),
    "deit_small_distilled_patch16_224": Published(
        "deit", 224, 22_436_432, 4_624_140_288, 81.2, "fb_in1k", "paper 81.2"
    ),
    "deit_base_distilled_patch16_224": Published(
        "deit", 224, 87_338_192, 17_656_811_520, 83.38, "fb_in1k", "paper 83.4"
    ),
    "deit_base_distilled_patch16_384": Published(
        "deit", 384, 87_630_032, 55_591_342_080, 85.44, "fb_in1k", "official 85.2, mmpretrain 85.55: crops differ"
    ),
    "swin_tiny_patch4_window7_224": Published("swin", 224, 28_288_354, 4_490_566_656, 81.39, "ms_in1k", "paper 81.2"),
    "swin_small_patch4_window7_224": Published("swin", 224, 49_606_258, 8_740_875_264, 83.23, "ms_in1k", "paper 83.2"),
    "swin_base_patch4_window7_224": Published("swin", 224, 87_768_224, 15_430_946_816, 83.6, "ms_in1k", "paper 83.5"),
    "swin_base_patch4_window12_384": Published("swin", 384, 87_903_584, 47_083_134_976, 84.48, "ms_in1k", "paper 84.5"),
    "swin_large_patch4_window7_224": Published(
        "swin", 224, 196_532_476, 34_475_759_616, 86.32, "ms_in22k_ft_in1k", "paper 86.3"
    ),
    "swin_large_patch4_window12_384": Published(
        "swin", 384, 196_735_516, 103_919_087_616, 87.14, "ms_in22k_ft_in1k", "paper 87.3"
    ),
    "nat_mini": Published("nat", 224, 19_984_174, 2_694_812_672, note="official 81.8"),
    "nat_tiny": Published("nat", 224, 27_901_582, 4_295_226_368, note="official 83.2"),
    "nat_small": Published("nat", 224, 50_743_297, 7_772_302_848, note="official 83.7"),
    "nat_base": Published(
        "nat", 224, 89_769_652, 13_677_094_912, note="official 84.3; 13.728 G with the norms counted"
    ),
    "dinat_mini": Published("dinat", 224, 19_984_174, 2_694_812_672, note="official 81.8"),
    "dinat_tiny": Published("dinat", 224, 27_901_582, 4_295_226_368, note="official 82.7"),
    "dinat_small": Published("dinat", 224, 50_719_681, 7_772_302_848, note="official 83.8"),
    "dinat_base": Published("dinat", 224, 89_769_652, 13_677_094_912, note="official 84.4"),
    "dinat_large": Published("dinat", 224, 200_943_514, 30_457_715_712, note="official 86.6, from ImageNet-22K"),
    "dinat_large_384": Published("dinat", 384, 200_943_514, 89_505_411_072, note="official 87.4, from ImageNet-22K"),
    "dinat_large_384_11x11": Published(
        "dinat", 384, 201_144_250, 92_085_301_248, note="official 87.5, from ImageNet-22K"
    ),
    "dinat_large_21k": Published("dinat", 224, 232_976_131, 30_489_727_488),
    "dinat_s_tiny": Published("dinat_s", 224, 28_288_354, 4_490_566_656, note="official 81.8"),
    "dinat_s_small": Published("dinat_s", 224, 49_606_258, 8_740_875_264, note="official 83.5"),
    "dinat_s_base": Published("dinat_s", 224, 87_768_224, 15_430_946_816, note="official 83.8"),
    "dinat_s_large": Published("dinat_s", 224, 196_532_476, 34_475_759_616, note="official 86.5, from ImageNet-22K"),
    "dinat_s_large_384": Published(
        "dinat_s", 384, 196_532_476, 101_313_540_096, note="official 87.4, from ImageNet-22K"
    ),
    "dinat_s_large_21k": Published("dinat_s", 224, 228_565_093, 34_507_771_392),
    "poolformer_s12": Published("poolformer", 224, 11_915_176, 1_812_267_008, 77.24, "sail_in1k", "paper 77.2"),
    "poolformer_s24": Published("poolformer", 224, 21_388_968, 3_392_208_896, 80.29, "sail_in1k", "paper 80.3"),
    "poolformer_s36": Published("poolformer", 224, 30_862_760, 4_972_150_784, 81.43, "sail_in1k", "paper 81.4"),
    "poolformer_m36": Published("poolformer", 224, 56_172_520, 8_758_788_096, 82.1, "sail_in1k", "paper 82.1"),
    "poolformer_m48": Published("poolformer", 224, 73_473_448, 11_533_320_192, 82.46, "sail_in1k", "paper 82.5"),
    "mixer_s32_224": Published("mixer", 224, 19_104_624, 1_002_426_368),
    "mixer_s16_224": Published("mixer", 224, 18_528_264, 3_776_958_464),
    "mixer_b32_224": Published("mixer", 224, 60_293_428, 3_237_722_112),
    "mixer_b16_224": Published(
        "mixer", 224, 59_880_472, 12_601_767_936, 76.62, "goog_in21k_ft_in1k", "mmpretrain 76.68"
    ),
    "mixer_l32_224": Published("mixer", 224, 206_939_264, 11_253_293_056),
    "mixer_l16_224": Published(
        "mixer", 224, 208_196_168, 44_547_678_208, 72.08, "goog_in21k_ft_in1k", "mmpretrain 72.34"
    ),
    "resnetv2_50x1_bit": Published(
        "bit", 448, 25_549_352, 16_350_593_024, 80.39, "goog_in21k_ft_in1k", "4.089 G at 224"
    ),
    "resnetv2_50x3_bit": Published("bit", 448, 217_319_080, 144_310_714_368, 83.98, "goog_in21k_ft_in1k"),
    "resnetv2_101x1_bit": Published("bit", 448, 44_541_480, 31_199_477_760, 82.33, "goog_in21k_ft_in1k"),
    "resnetv2_101x3_bit": Published("bit", 448, 387_934_888, 277_950_676_992, 84.43, "goog_in21k_ft_in1k"),
    "resnetv2_152x2_bit": Published(
        "bit", 448, 236_335_208, 183_245_242_368, 84.47, "goog_in21k_ft_in1k", "45.814 G at 224"
    ),
    "resnetv2_152x4_bit": Published("bit", 480, 936_533_224, 839_254_016_000, 84.94, "goog_in21k_ft_in1k"),
}
