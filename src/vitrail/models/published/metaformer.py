"""Published figures of metaformer."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "caformer_s18": Published(224, 26_341_656, 4_106_941_440, 83.66, "sail_in1k", "official 83.6"),
    "caformer_s36": Published(224, 39_297_102, 7_971_597_312, 84.53, "sail_in1k", "official 84.5"),
    "caformer_m36": Published(224, 56_204_878, 13_240_630_656, 85.24, "sail_in1k", "official 85.2"),
    "caformer_b36": Published(224, 98_753_614, 23_160_476_160, 85.5, "sail_in1k", "official 85.5"),
    "convformer_s18": Published(224, 26_774_448, 3_940_984_320, 82.97, "sail_in1k", "official 83.0"),
    "convformer_s36": Published(224, 40_012_152, 7_639_683_072, 84.07, "sail_in1k", "official 84.1"),
    "convformer_m36": Published(224, 57_051_640, 12_842_333_568, 84.49, "sail_in1k", "official 84.5"),
    "convformer_b36": Published(224, 99_882_616, 22_629_413_376, 84.83, "sail_in1k", "official 84.8"),
    "poolformerv2_s12": Published(224, 11_891_712, 1_812_267_008, 78.01, "sail_in1k", "official 78.0"),
    "poolformerv2_s24": Published(224, 21_341_464, 3_392_208_896, 80.75, "sail_in1k", "official 80.7"),
    "poolformerv2_s36": Published(224, 30_791_216, 4_972_150_784, 81.58, "sail_in1k", "official 81.6"),
    "poolformerv2_m36": Published(224, 56_077_168, 8_758_788_096, 82.21, "sail_in1k", "official 82.2"),
    "poolformerv2_m48": Published(224, 73_346_056, 11_533_320_192, 82.61, "sail_in1k", "official 82.6"),
    "identityformer_s12": Published(224, 11_891_712, 1_812_267_008, note="official 74.6"),
    "identityformer_s24": Published(224, 21_341_464, 3_392_208_896, note="official 78.2"),
    "identityformer_s36": Published(224, 30_791_216, 4_972_150_784, note="official 79.3"),
    "identityformer_m36": Published(224, 56_077_168, 8_758_788_096, note="official 80.0"),
    "identityformer_m48": Published(224, 73_346_056, 11_533_320_192, note="official 80.4"),
    "randformer_s12": Published(224, 11_891_712, 1_888_484_352, note="and 0.2 M in frozen matrices"),
    "randformer_s24": Published(224, 21_341_464, 3_544_643_584, note="and 0.5 M in frozen matrices"),
    "randformer_s36": Published(224, 30_791_216, 5_200_802_816, note="and 0.7 M in frozen matrices"),
    "randformer_m36": Published(224, 56_077_168, 9_035_383_296, note="and 0.7 M in frozen matrices"),
    "randformer_m48": Published(224, 73_346_056, 11_902_113_792, note="and 0.9 M in frozen matrices"),
}
