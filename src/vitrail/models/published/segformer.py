"""Published figures of SegFormer at 512 x 512 with the 150 classes of ADE20K."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "segformer_b0": Published(512, 3_752_694, 8_387_821_568, task="segment"),
    "segformer_b1": Published(512, 13_715_798, 15_878_062_080, task="segment"),
    "segformer_b2": Published(512, 27_461_974, 62_337_843_200, task="segment"),
    "segformer_b3": Published(512, 47_337_814, 78_963_015_680, task="segment"),
    "segformer_b4": Published(512, 64_108_374, 95_567_478_784, task="segment"),
    "segformer_b5": Published(512, 84_708_694, 111_510_290_432, task="segment"),
    "segformer": Published(512, 6_004_006, 12_230_660_608, task="segment"),
}
