"""Published figures of pvt_v2."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "pvt_v2_b0": Published(224, 3_666_760, 566_065_664, 70.65, "in1k", "paper 70.5"),
    "pvt_v2_b1": Published(224, 14_009_000, 2_108_355_584, 78.7, "in1k", "paper 78.7"),
    "pvt_v2_b2": Published(224, 25_362_856, 4_026_734_592, 82.06, "in1k", "paper 82.0"),
    "pvt_v2_b2_li": Published(224, 22_553_512, 3_888_850_944, 82.2, "in1k", "paper 82.1"),
    "pvt_v2_b3": Published(224, 45_238_696, 6_897_303_552, 83.12, "in1k", "paper 83.1"),
    "pvt_v2_b4": Published(224, 62_556_072, 10_101_116_416, 83.71, "in1k", "paper 83.6"),
    "pvt_v2_b5": Published(224, 81_956_008, 11_717_260_288, 83.76, "in1k", "paper 83.8"),
}
