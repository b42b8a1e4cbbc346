"""Published figures of cait."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "cait_xxs24_224": Published(224, 11_956_264, 2_523_475_200, 78.4, "fb_dist_in1k"),
    "cait_xxs24_384": Published(384, 12_029_224, 9_599_136_000, 80.95, "fb_dist_in1k"),
    "cait_xxs36_224": Published(224, 17_299_720, 3_755_697_408, 79.75, "fb_dist_in1k"),
    "cait_xxs36_384": Published(384, 17_372_680, 14_313_009_408, 82.2, "fb_dist_in1k"),
    "cait_xs24_384": Published(384, 26_670_088, 19_240_642_944, 84.06, "fb_dist_in1k"),
    "cait_s24_224": Published(224, 46_916_200, 9_327_327_744, 83.48, "fb_dist_in1k"),
    "cait_s24_384": Published(384, 47_062_120, 32_110_109_184, 85.05, "fb_dist_in1k"),
    "cait_s36_384": Published(384, 68_366_632, 47_907_955_200, 85.46, "fb_dist_in1k"),
    "cait_m36_384": Published(384, 271_221_352, 172_943_655_936, 86.06, "fb_dist_in1k"),
    "cait_m48_448": Published(448, 356_460_520, 329_107_670_016, 86.48, "fb_dist_in1k"),
}
