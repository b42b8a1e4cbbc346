"""Published figures of bit."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "resnetv2_50x1_bit": Published(448, 25_549_352, 16_350_593_024, 80.39, "goog_in21k_ft_in1k", "4.089 G at 224"),
    "resnetv2_50x3_bit": Published(448, 217_319_080, 144_310_714_368, 83.98, "goog_in21k_ft_in1k"),
    "resnetv2_101x1_bit": Published(448, 44_541_480, 31_199_477_760, 82.33, "goog_in21k_ft_in1k"),
    "resnetv2_101x3_bit": Published(448, 387_934_888, 277_950_676_992, 84.43, "goog_in21k_ft_in1k"),
    "resnetv2_152x2_bit": Published(448, 236_335_208, 183_245_242_368, 84.47, "goog_in21k_ft_in1k", "45.814 G at 224"),
    "resnetv2_152x4_bit": Published(480, 936_533_224, 839_254_016_000, 84.94, "goog_in21k_ft_in1k"),
}
