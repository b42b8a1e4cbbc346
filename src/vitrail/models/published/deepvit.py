"""Published figures of deepvit."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "deepvit_patch16_224_re_attn_16b": Published(224, 24_426_664, 5_272_300_800, note="official 24.5 M, 79.10"),
    "deepvit_patch16_224_re_attn_24b": Published(224, 36_261_448, 7_879_357_824, note="official 36.3 M, 79.99"),
    "deepvit_patch16_224_re_attn_32b": Published(224, 48_096_232, 10_486_414_848, note="official 48.1 M, 80.90"),
}
