"""What is published about each variant: its size, its cost and how often its released weights are right.

`parameters` are exact, with the variant's own classes (1000, but where a name ends in `21k`). `gmacs` are multiply-adds
in units of 10^9 for one picture of the variant's own size, the products of attention included (tables that leave them
out show less). `top1` is the ImageNet-1k validation accuracy that timm measured (`results/results-imagenet.csv` in its
repository) with the weights named by `weights`, under the variant's own `preprocess`; None where it measured none.
`note` holds what the authors ("paper", "official": their repository) and others state. The tests count parameters and
multiply-adds anew for every variant.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """The published figures of one variant."""

    parameters: int
    gmacs: float
    top1: float | None = None
    weights: str = ""
    note: str = ""


PUBLISHED = {
    "vit_tiny_patch16_224": Published(5_717_416, 1.254, 75.45, "augreg_in21k_ft_in1k"),
    "vit_tiny_patch16_384": Published(5_790_376, 4.682, 78.44, "augreg_in21k_ft_in1k", "official 78.22"),
    "vit_small_patch32_224": Published(22_878_952, 1.143, 76.01, "augreg_in21k_ft_in1k"),
    "vit_small_patch32_384": Published(22_915_432, 3.443, 80.48, "augreg_in21k_ft_in1k"),
    "vit_small_patch16_224": Published(22_050_664, 4.599, 81.4, "augreg_in21k_ft_in1k"),
    "vit_small_patch16_384": Published(22_196_584, 15.49, 83.81, "augreg_in21k_ft_in1k", "official 83.73"),
    "vit_small_patch8_224": Published(22_055_272, 22.406),
    "vit_base_patch32_224": Published(88_224_232, 4.409, 80.73, "augreg_in21k_ft_in1k"),
    "vit_base_patch32_384": Published(88_297_192, 13.044, 83.36, "augreg_in21k_ft_in1k", "official 83.59"),
    "vit_base_patch16_224": Published(86_567_656, 17.564, 84.53, "augreg_in21k_ft_in1k"),
    "vit_base_patch16_384": Published(86_859_496, 55.484, 86.01, "augreg_in21k_ft_in1k", "official 85.49"),
    "vit_base_patch8_224": Published(86_576_872, 78.148, 85.84, "augreg_in21k_ft_in1k"),
    "vit_large_patch32_224": Published(306_535_400, 15.378),
    "vit_large_patch32_384": Published(306_632_680, 45.276, 81.51, "orig_in21k_ft_in1k"),
    "vit_large_patch16_224": Published(304_326_632, 61.555, 85.86, "augreg_in21k_ft_in1k"),
    "vit_large_patch16_384": Published(304_715_752, 191.066, 87.1, "augreg_in21k_ft_in1k", "official 85.59"),
    "vit_large_patch14_224": Published(304_203_752, 81.013),
    "vit_huge_patch14_224": Published(632_045_800, 167.295, note="630,764,800 parameters without the head"),
    "vit_tiny_r_s16_p8_224": Published(6_337_704, 0.434, 71.8, "augreg_in21k_ft_in1k"),
    "vit_tiny_r_s16_p8_384": Published(6_355_944, 1.327, 75.96, "augreg_in21k_ft_in1k", "official 75.40"),
    "vit_small_r26_s32_224": Published(36_431_912, 3.464, 81.86, "augreg_in21k_ft_in1k"),
    "vit_small_r26_s32_384": Published(36_468_392, 10.264, 84.07, "augreg_in21k_ft_in1k", "official 83.85"),
    "vit_base_r50_s16_224": Published(98_659_112, 21.535),
    "vit_base_r50_s16_384": Published(98_950_952, 67.156, 84.99, "orig_in21k_ft_in1k"),
    "vit_large_r50_s32_224": Published(328_994_856, 19.413, 84.43, "augreg_in21k_ft_in1k"),
    "vit_large_r50_s32_384": Published(329_092_136, 57.136, 86.19, "augreg_in21k_ft_in1k", "official 85.99"),
    "deit_tiny_patch16_224": Published(5_717_416, 1.254, 72.19, "fb_in1k", "paper 72.2"),
    "deit_small_patch16_224": Published(22_050_664, 4.599, 79.86, "fb_in1k", "paper 79.9"),
    "deit_base_patch16_224": Published(86_567_656, 17.564, 81.98, "fb_in1k", "paper 81.8"),
    "deit_base_patch16_384": Published(86_859_496, 55.484, 83.11, "fb_in1k", "official 82.9"),
    "deit_tiny_distilled_patch16_224": Published(5_910_800, 1.261, 74.54, "fb_in1k", "paper 74.5"),
    "deit_small_distilled_patch16_224": Published(22_436_432, 4.624, 81.2, "fb_in1k", "paper 81.2"),
    "deit_base_distilled_patch16_224": Published(87_338_192, 17.657, 83.38, "fb_in1k", "paper 83.4"),
    "deit_base_distilled_patch16_384": Published(
        87_630_032, 55.591, 85.44, "fb_in1k", "official 85.2, mmpretrain 85.55: crops differ"
    ),
    "swin_tiny_patch4_window7_224": Published(28_288_354, 4.491, 81.39, "ms_in1k", "paper 81.2"),
    "swin_small_patch4_window7_224": Published(49_606_258, 8.741, 83.23, "ms_in1k", "paper 83.2"),
    "swin_base_patch4_window7_224": Published(87_768_224, 15.431, 83.6, "ms_in1k", "paper 83.5"),
    "swin_base_patch4_window12_384": Published(87_903_584, 47.083, 84.48, "ms_in1k", "paper 84.5"),
    "swin_large_patch4_window7_224": Published(196_532_476, 34.476, 86.32, "ms_in22k_ft_in1k", "paper 86.3"),
    "swin_large_patch4_window12_384": Published(196_735_516, 103.919, 87.14, "ms_in22k_ft_in1k", "paper 87.3"),
    "nat_mini": Published(19_984_174, 2.695, note="official 81.8"),
    "nat_tiny": Published(27_901_582, 4.295, note="official 83.2"),
    "nat_small": Published(50_743_297, 7.772, note="official 83.7"),
    "nat_base": Published(89_769_652, 13.677, note="official 84.3; 13.728 G with the norms counted"),
    "dinat_mini": Published(19_984_174, 2.695, note="official 81.8"),
    "dinat_tiny": Published(27_901_582, 4.295, note="official 82.7"),
    "dinat_small": Published(50_719_681, 7.772, note="official 83.8"),
    "dinat_base": Published(89_769_652, 13.677, note="official 84.4"),
    "dinat_large": Published(200_943_514, 30.458, note="official 86.6, from ImageNet-22K"),
    "dinat_large_384": Published(200_943_514, 89.505, note="official 87.4, from ImageNet-22K"),
    "dinat_large_384_11x11": Published(201_144_250, 92.085, note="official 87.5, from ImageNet-22K"),
    "dinat_large_21k": Published(232_976_131, 30.490),
    "dinat_s_tiny": Published(28_288_354, 4.491, note="official 81.8"),
    "dinat_s_small": Published(49_606_258, 8.741, note="official 83.5"),
    "dinat_s_base": Published(87_768_224, 15.431, note="official 83.8"),
    "dinat_s_large": Published(196_532_476, 34.476, note="official 86.5, from ImageNet-22K"),
    "dinat_s_large_384": Published(196_532_476, 101.314, note="official 87.4, from ImageNet-22K"),
    "dinat_s_large_21k": Published(228_565_093, 34.508),
    "poolformer_s12": Published(11_915_176, 1.812, 77.24, "sail_in1k", "paper 77.2"),
    "poolformer_s24": Published(21_388_968, 3.392, 80.29, "sail_in1k", "paper 80.3"),
    "poolformer_s36": Published(30_862_760, 4.972, 81.43, "sail_in1k", "paper 81.4"),
    "poolformer_m36": Published(56_172_520, 8.759, 82.1, "sail_in1k", "paper 82.1"),
    "poolformer_m48": Published(73_473_448, 11.533, 82.46, "sail_in1k", "paper 82.5"),
    "mixer_s32_224": Published(19_104_624, 1.002),
    "mixer_s16_224": Published(18_528_264, 3.777),
    "mixer_b32_224": Published(60_293_428, 3.238),
    "mixer_b16_224": Published(59_880_472, 12.602, 76.62, "goog_in21k_ft_in1k", "mmpretrain 76.68"),
    "mixer_l32_224": Published(206_939_264, 11.253),
    "mixer_l16_224": Published(208_196_168, 44.548, 72.08, "goog_in21k_ft_in1k", "mmpretrain 72.34"),
    "resnetv2_50x1_bit": Published(25_549_352, 16.351, 80.39, "goog_in21k_ft_in1k", "4.089 G at 224"),
    "resnetv2_50x3_bit": Published(217_319_080, 144.311, 83.98, "goog_in21k_ft_in1k"),
    "resnetv2_101x1_bit": Published(44_541_480, 31.199, 82.33, "goog_in21k_ft_in1k"),
    "resnetv2_101x3_bit": Published(387_934_888, 277.951, 84.43, "goog_in21k_ft_in1k"),
    "resnetv2_152x2_bit": Published(236_335_208, 183.245, 84.47, "goog_in21k_ft_in1k", "45.814 G at 224"),
    "resnetv2_152x4_bit": Published(936_533_224, 839.254, 84.94, "goog_in21k_ft_in1k"),
}
