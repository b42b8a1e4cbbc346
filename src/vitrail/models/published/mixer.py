"""Published figures of mixer."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "mixer_s32_224": Published(224, 19_104_624, 1_002_426_368),
    "mixer_s16_224": Published(224, 18_528_264, 3_776_958_464),
    "mixer_b32_224": Published(224, 60_293_428, 3_237_722_112),
    "mixer_b16_224": Published(224, 59_880_472, 12_601_767_936, 76.62, "goog_in21k_ft_in1k", "mmpretrain 76.68"),
    "mixer_l32_224": Published(224, 206_939_264, 11_253_293_056),
    "mixer_l16_224": Published(224, 208_196_168, 44_547_678_208, 72.08, "goog_in21k_ft_in1k", "mmpretrain 72.34"),
}
