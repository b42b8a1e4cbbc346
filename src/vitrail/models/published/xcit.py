"""Published figures of xcit."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "xcit_nano_12_p16_224": Published(224, 3_053_224, 550_952_448, 69.98, "fb_in1k"),
    "xcit_nano_12_p16_384": Published(384, 3_053_224, 1_618_114_048, 75.46, "fb_dist_in1k"),
    "xcit_tiny_12_p16_224": Published(224, 6_716_272, 1_230_138_624, 77.12, "fb_in1k"),
    "xcit_tiny_12_p16_384": Published(384, 6_716_272, 3_613_012_224, 80.95, "fb_dist_in1k"),
    "xcit_small_12_p16_224": Published(224, 26_253_304, 4_795_832_832, 81.98, "fb_in1k"),
    "xcit_small_12_p16_384": Published(384, 26_253_304, 14_086_267_392, 84.73, "fb_dist_in1k"),
    "xcit_tiny_24_p16_224": Published(224, 12_116_896, 2_322_068_736, 79.47, "fb_in1k"),
    "xcit_tiny_24_p16_384": Published(384, 12_116_896, 6_821_949_696, 82.58, "fb_dist_in1k"),
    "xcit_small_24_p16_224": Published(224, 47_671_384, 9_060_592_128, 82.59, "fb_in1k"),
    "xcit_small_24_p16_384": Published(384, 47_671_384, 26_619_437_568, 85.1, "fb_dist_in1k"),
    "xcit_medium_24_p16_224": Published(224, 84_395_752, 16_083_597_312, 82.63, "fb_in1k"),
    "xcit_medium_24_p16_384": Published(384, 84_395_752, 47_252_887_552, 85.43, "fb_dist_in1k"),
    "xcit_large_24_p16_224": Published(224, 189_096_136, 35_787_002_880, 82.89, "fb_in1k"),
    "xcit_large_24_p16_384": Published(384, 189_096_136, 105_141_027_840, 85.78, "fb_dist_in1k"),
    "xcit_nano_12_p8_224": Published(224, 3_049_016, 2_133_603_840, 73.9, "fb_in1k"),
    "xcit_nano_12_p8_384": Published(384, 3_049_016, 6_269_171_200, 77.81, "fb_dist_in1k"),
    "xcit_tiny_12_p8_224": Published(224, 6_706_504, 4_771_008_768, 79.71, "fb_in1k"),
    "xcit_tiny_12_p8_384": Published(384, 6_706_504, 14_018_834_688, 82.39, "fb_dist_in1k"),
    "xcit_small_12_p8_224": Published(224, 26_213_032, 18_618_819_072, 83.35, "fb_in1k"),
    "xcit_small_12_p8_384": Published(384, 26_213_032, 54_708_920_832, 85.07, "fb_dist_in1k"),
    "xcit_tiny_24_p8_224": Published(224, 12_107_128, 9_138_729_216, 81.89, "fb_in1k"),
    "xcit_tiny_24_p8_384": Published(384, 12_107_128, 26_854_584_576, 83.78, "fb_dist_in1k"),
    "xcit_small_24_p8_224": Published(224, 47_631_112, 35_677_856_256, 83.85, "fb_in1k"),
    "xcit_small_24_p8_384": Published(384, 47_631_112, 104_841_601_536, 85.58, "fb_dist_in1k"),
    "xcit_medium_24_p8_224": Published(224, 84_323_624, 63_345_776_640, 83.74, "fb_in1k"),
    "xcit_medium_24_p8_384": Published(384, 84_323_624, 186_145_822_720, 85.84, "fb_dist_in1k"),
    "xcit_large_24_p8_224": Published(224, 188_932_648, 140_957_303_808, 84.38, "fb_in1k"),
    "xcit_large_24_p8_384": Published(384, 188_932_648, 414_212_932_608, 86.02, "fb_dist_in1k"),
}
