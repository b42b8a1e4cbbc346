"""Published figures of convnext."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "convnext_atto": Published(224, 3_695_520, 547_332_480, 75.67, "d2_in1k"),
    "convnext_femto": Published(224, 5_217_784, 779_629_824, 77.5, "d1_in1k"),
    "convnext_pico": Published(224, 9_045_672, 1_367_055_360, 79.52, "d1_in1k"),
    "convnext_nano": Published(224, 15_593_560, 2_445_528_320, 80.76, "d1h_in1k"),
    "convnext_tiny": Published(224, 28_589_128, 4_455_531_264, 82.07, "fb_in1k", "official 82.1"),
    "convnext_small": Published(224, 50_223_688, 8_683_712_256, 83.14, "fb_in1k", "official 83.1"),
    "convnext_base": Published(224, 88_591_464, 15_354_729_472, 83.84, "fb_in1k", "official 83.8"),
    "convnext_large": Published(224, 197_767_336, 34_361_433_600, 84.3, "fb_in1k", "official 84.3"),
    "convnext_xlarge": Published(224, 350_196_968, 60_921_030_656, 86.97, "fb_in22k_ft_in1k", "official 87.0"),
    "convnextv2_atto": Published(224, 3_708_400, 547_332_480, 76.64, "fcmae_ft_in1k", "official 76.7"),
    "convnextv2_femto": Published(224, 5_233_240, 779_629_824, 78.48, "fcmae_ft_in1k", "official 78.5"),
    "convnextv2_pico": Published(224, 9_066_280, 1_367_055_360, 80.3, "fcmae_ft_in1k", "official 80.3"),
    "convnextv2_nano": Published(224, 15_623_800, 2_445_528_320, 81.86, "fcmae_ft_in1k", "official 81.9"),
    "convnextv2_tiny": Published(224, 28_635_496, 4_455_531_264, 82.95, "fcmae_ft_in1k", "official 83.0"),
    "convnextv2_small": Published(224, 50_318_440, 8_683_712_256),
    "convnextv2_base": Published(224, 88_717_800, 15_354_729_472, 84.89, "fcmae_ft_in1k", "official 84.9"),
    "convnextv2_large": Published(224, 197_956_840, 34_361_433_600, 85.76, "fcmae_ft_in1k", "official 85.8"),
    "convnextv2_huge": Published(224, 660_289_640, 114_922_100_480, 86.26, "fcmae_ft_in1k", "official 86.3"),
}
