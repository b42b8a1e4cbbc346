"""Published figures of cct. Its accuracies are on CIFAR-10, or on ImageNet-1k at 224 and 384 pixels."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "cct_2_3x2_32": Published(32, 283_723, 35_341_568, note="official, CIFAR-10, 200 epochs: 89.17"),
    "cct_4_3x2_32": Published(32, 482_123, 50_021_632, note="official, CIFAR-10, 200 epochs: 91.45"),
    "cct_6_3x1_32": Published(
        32, 3_233_803, 1_013_844_480, note="official, CIFAR-10, 200 epochs: 94.81; 3.168 M without the position table"
    ),
    "cct_6_3x2_32": Published(32, 3_326_923, 253_463_040, note="official, CIFAR-10, 200 epochs: 93.56"),
    "cct_7_3x1_32": Published(32, 3_760_139, 1_181_616_640, note="official, CIFAR-10, 200 epochs: 94.78"),
    "cct_7_3x2_32": Published(32, 3_853_259, 289_114_624, note="official, CIFAR-10, 200 epochs: 93.83"),
    "cct_14_7x2_224": Published(224, 22_367_273, 5_521_901_568),
    "cct_14_7x2_384": Published(384, 22_513_193, 18_580_282_368),
    "cvt_6_4_32": Published(32, 3_190_283, 214_731_264, note="official, CIFAR-10, 200 epochs: 92.58"),
    "cvt_7_4_32": Published(32, 3_716_619, 250_382_848, note="official, CIFAR-10, 200 epochs: 92.43"),
}
