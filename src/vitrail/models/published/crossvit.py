"""Published figures of crossvit."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "crossvit_tiny_240": Published(240, 7_014_800, 1_562_734_080, 73.35, "in1k"),
    "crossvit_small_240": Published(240, 26_856_272, 5_615_557_632, 81.04, "in1k"),
    "crossvit_base_240": Published(240, 105_025_232, 21_191_473_152, 82.21, "in1k"),
    "crossvit_9_240": Published(240, 8_553_296, 1_840_796_160, 73.99, "in1k"),
    "crossvit_15_240": Published(240, 27_528_464, 5_790_571_776, 81.52, "in1k"),
    "crossvit_18_240": Published(240, 43_271_408, 9_031_158_528, 82.39, "in1k"),
    "crossvit_9_dagger_240": Published(240, 8_776_592, 1_979_049_984, 76.99, "in1k"),
    "crossvit_15_dagger_240": Published(240, 28_209_008, 6_112_304_640, 82.3, "in1k"),
    "crossvit_15_dagger_408": Published(408, 28_500_080, 21_398_550_336, 83.84, "in1k"),
    "crossvit_18_dagger_240": Published(240, 44_266_976, 9_473_218_944, 82.49, "in1k"),
    "crossvit_18_dagger_408": Published(408, 44_606_560, 32_409_093_024, 84.2, "in1k"),
}
